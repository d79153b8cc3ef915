"""Train and score the models that ship: `python -m inference.training image|text|lora|evaluate|gallery|all`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from inference.training import denoiser, gallery, language_model, lora, scores
from inference.training.dialogues import turn
from inference.training.loop import Run

SHIPPED = Path(__file__).parents[1] / "models"


def main() -> None:
    options = arguments()
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    torch.set_num_threads(options.threads)
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    budget_s = options.budget * 60 if options.budget else None
    run = Run(options.out, torch.device(name), options.seed, budget_s, options.quiet)
    run.out.mkdir(parents=True, exist_ok=True)
    image = options.image or SHIPPED / "moa-tiny-image"
    text = options.text or SHIPPED / "moa-tiny-chat"
    what = options.what
    if what in ("text", "all"):
        text = language_model.train(run)
    if what in ("image", "all"):
        image = denoiser.train(run, options.start)
    if what in ("lora", "all"):
        lora.train_all(image, run)
    if what in ("evaluate", "all"):
        evaluate(run, image, text, options.count)
    if what in ("gallery", "all"):
        gallery.sheet(scores.painter(scores.load_pipeline(image, run.device))).save(run.out / "gallery.png")
        print(run.out / "gallery.png")


def evaluate(run: Run, image: Path, text: Path, count: int) -> None:
    exact, wrong = scores.exactness(scores.Chat(text, run.device), turn, count * 10)
    for question, wanted, given in wrong[:10]:
        print(f"wrong: {question!r}: {given!r}, not {wanted!r}", file=sys.stderr)
    print(json.dumps(exact, ensure_ascii=False))
    shown = scores.pictures(scores.painter(scores.load_pipeline(image, run.device)), count)
    print(scores.markdown(shown))
    found = {"text": exact, "image": shown}
    (run.out / "scores.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m inference.training", description=__doc__)
    parser.add_argument("what", choices=("image", "text", "lora", "evaluate", "gallery", "all"))
    parser.add_argument("--out", type=Path, required=True, help="folder for results and checkpoints; resumes from it")
    parser.add_argument("--budget", type=float, help="minutes for each model; default: the recipe's steps")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--start", type=Path, help="image model folder to train further; default: from nothing")
    parser.add_argument("--image", type=Path, help="image model to score or adapt; default: the one that ships")
    parser.add_argument("--text", type=Path, help="text model to score; default: the one that ships")
    parser.add_argument("--count", type=int, default=40, help="pictures a row of the score table; ten times the turns")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args()


if __name__ == "__main__":
    main()
