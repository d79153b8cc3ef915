"""Train and score the models that ship: `python -m inference.training all --out FOLDER`, or one part of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from inference.training import denoiser, gallery, held_out, language_model, lora, lora_scores, scores, vision
from inference.training.denoiser import Effort
from inference.training.dialogues import turn
from inference.training.loop import Run

SHIPPED: Final = Path(__file__).parents[1] / "models"
STAGES: Final = ("text", "image", "lora", "vision", "evaluate", "gallery")
"""In the order in which `all` goes through them: LoRAs are trained on the image model that was just made."""


def main(given: list[str] | None = None) -> None:
    """Go through the stages that the arguments name."""
    options = arguments().parse_args(given)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    torch.set_num_threads(options.threads)
    budget_s = options.budget * 60 if options.budget else None
    run = Run(options.out, device(options.device), options.seed, budget_s, options.quiet)
    run.out.mkdir(parents=True, exist_ok=True)
    made = {
        "text": options.text or SHIPPED / "moa-tiny-chat",
        "image": options.image or SHIPPED / "moa-tiny-image",
        "loras": options.loras or SHIPPED / "moa-tiny-image-loras",
        "vision": options.vision or SHIPPED / "moa-tiny-vision",
    }
    for stage in STAGES if options.what == "all" else (options.what,):
        if not options.quiet:
            print(f"{stage}: on {run.device}", file=sys.stderr, flush=True)
        go(stage, run, made, options)


def go(stage: str, run: Run, made: dict[str, Path], options: argparse.Namespace) -> None:
    """Go through one stage; `made` holds the folders of what the stages before have made, or of what ships."""
    share = options.share
    if stage == "text":
        amounts = (part(amount, share) for amount in (language_model.STEPS, language_model.DIALOGUES))
        made["text"] = language_model.train(run, options.start_text, *amounts)
    elif stage == "image":
        made["image"] = denoiser.train(run, options.start, Effort().part(share))
    elif stage == "lora":
        made["loras"] = lora.train_all(made["image"], run, share)
    elif stage == "vision":
        made["vision"] = vision.train(run, part(vision.STEPS, share), part(vision.CAPTIONS, share))
    elif stage == "evaluate":
        evaluate(run, made, options.count)
    else:
        sheet = gallery.sheet(scores.painter(scores.load_pipeline(made["image"], run.device)))
        sheet.save(run.out / "gallery.png")
        print(run.out / "gallery.png")


def evaluate(run: Run, made: dict[str, Path], count: int) -> None:
    """Score the models, print the tables of their cards, and keep all in `scores.json`."""
    found: dict[str, Any] = {}
    chat = scores.Chat(made["text"], run.device)
    found["text"], wrong = scores.exactness(chat, turn, count * 10)
    for question, wanted, given in wrong[:10]:
        print(f"wrong: {question!r}: {given!r}, not {wanted!r}", file=sys.stderr)
    print(json.dumps(found["text"], ensure_ascii=False))
    found["held-out"], _ = held_out.shares(chat.answers, "test")
    print(scores.markdown(found["held-out"], "questions"))
    found["image"] = scores.pictures(scores.painter(scores.load_pipeline(made["image"], run.device)), count)
    print(scores.markdown(found["image"]))
    found["loras"], _ = lora_scores.table(made["image"], made["loras"], run.device, count)
    print(scores.markdown(found["loras"], "LoRAs"))
    found["vision"] = vision.scores(made["vision"], count * 10)
    print(json.dumps(found["vision"]))
    (run.out / "scores.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def device(name: str) -> torch.device:
    """Give the device of that name; `auto` is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def part(amount: int, share: float) -> int:
    """Give a share of an amount, at least one."""
    return max(1, round(amount * share))


def arguments() -> argparse.ArgumentParser:
    """Give the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m inference.training", description=__doc__)
    parser.add_argument("what", choices=(*STAGES, "all"))
    parser.add_argument("--out", type=Path, required=True, help="folder for results and checkpoints; resumes from it")
    parser.add_argument("--budget", type=float, help="minutes for each model; default: the recipe's steps")
    parser.add_argument("--share", type=float, default=1.0, help="of the recipe's steps and pictures, to try it out")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--start", type=Path, help="image model folder to train further; default: from nothing")
    parser.add_argument("--start-text", type=Path, help="text model folder to train further; default: from nothing")
    parser.add_argument("--image", type=Path, help="image model to score or adapt; default: the one that ships")
    parser.add_argument("--text", type=Path, help="text model to score; default: the one that ships")
    parser.add_argument("--loras", type=Path, help="folder of LoRAs to score; default: those that ship")
    parser.add_argument("--vision", type=Path, help="vision model to score; default: the one that ships")
    parser.add_argument("--count", type=int, default=40, help="pictures a row of the score tables; ten times the turns")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


if __name__ == "__main__":
    main()
