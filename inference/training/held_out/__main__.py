"""Print the shares of right answers: `python -m inference.training.held_out [--half dev --wrong] [--text FOLDER]`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import torch

from inference.training.held_out import shares
from inference.training.scores import Chat, markdown

_SHIPPED: Final = Path(__file__).parents[2] / "models" / "moa-tiny-chat"


def main() -> None:
    """Score one half, by language and kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=_SHIPPED, help="text model; default: the one that ships")
    parser.add_argument("--half", choices=("dev", "test"), default="test")
    parser.add_argument("--wrong", action="store_true", help="print what was answered wrongly too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, wrong = shares(Chat(options.text, torch.device("cpu")).answers, options.half)
    print(markdown(table, "questions"))
    for question, answer in wrong if options.wrong else ():
        print(f"{question.kind}: {question.text!r}: {answer!r}")


if __name__ == "__main__":
    main()
