"""Score the two models: pixel rules on prompts whose pairs were drawn or held out, exactness on templated questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.training.loop import dice
from inference.training.pictures import Drawing, plain
from inference.training.rules import Verdict, judge

STEPS: Final = 20
GUIDANCE: Final = 4.0
HELD_OUT_SEED: Final = 777
"""Never used by training, whose default seed is 0."""
_KINDS: Final[dict[str, Callable[..., Drawing]]] = {
    "single": plain.single,
    "count": plain.count,
    "relation": plain.relation,
}

Table = dict[str, dict[str, float]]
Paint = Callable[[list[str], int], list[Image.Image]]
"""Prompts and the seed of the first to pictures."""


def painter(pipeline: StableDiffusionPipeline, *, steps: int = STEPS, guidance: float = GUIDANCE) -> Paint:
    """Give a function that draws prompts with the pipeline, each from its own seed."""
    pipeline.set_progress_bar_config(disable=True)

    def paint(prompts: list[str], seed: int) -> list[Image.Image]:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        images: list[Image.Image] = pipeline(
            prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators
        ).images
        return images

    return paint


def load_pipeline(folder: Path, device: torch.device) -> StableDiffusionPipeline:
    """Load an image model in float32, which every CPU is fast at."""
    return StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(device)


def pictures(paint: Paint, count: int, *, seed: int = HELD_OUT_SEED, batch: int = 20) -> Table:
    """Give the share of pictures that show each fact of their prompt, for each kind, pairs seen and held out."""
    table: Table = {}
    for held_out in (False, True):
        for kind, make in _KINDS.items():
            asked = [make(dice(seed, i), held_out=held_out) for i in range(count)]
            verdicts = []
            for at in range(0, count, batch):
                part = asked[at : at + batch]
                made = paint([d.caption for d in part], seed + at)
                verdicts += [judge(image, d.facts) for image, d in zip(made, part, strict=True) if d.facts]
            table[f"{kind}, {'held-out' if held_out else 'seen'} pairs"] = _shares(verdicts)
    return table


def _shares(verdicts: list[Verdict]) -> dict[str, float]:
    names = [field.name for field in fields(Verdict)] + ["all"]
    return {name: round(sum(getattr(v, name) for v in verdicts) / len(verdicts), 3) for name in names}


class Chat:
    """A text model that answers greedily.

    Args:
        folder: As `text` saved it.
        device: Where to run.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._network: Any = network.to(device).eval()

    def answers(self, questions: list[str]) -> list[str]:
        """Answer questions, each on its own."""
        chats = [[{"role": "user", "content": question}] for question in questions]
        prompt = self._tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        ).to(self._network.device)
        with torch.inference_mode():
            made = self._network.generate(**prompt, max_new_tokens=128, do_sample=False)
        start = prompt["input_ids"].shape[1]
        return [str(self._tokenizer.decode(row[start:], skip_special_tokens=True)) for row in made]


def exactness(
    chat: Chat, turn: Callable[[Random], tuple[str, str, str]], count: int, *, seed: int = HELD_OUT_SEED
) -> tuple[dict[str, float], list[tuple[str, str, str]]]:
    """Give the share of answers that are right to the letter, for each kind and in all, and the wrong ones."""
    rng = dice(seed)
    asked = [turn(rng) for _ in range(count)]
    right: dict[str, list[bool]] = defaultdict(list)
    wrong = []
    for at in range(0, count, 64):
        part = asked[at : at + 64]
        for (kind, question, wanted), given in zip(part, chat.answers([q for _, q, _ in part]), strict=True):
            right[kind].append(given == wanted)
            if given != wanted:
                wrong.append((question, wanted, given))
    table = {kind: round(sum(marks) / len(marks), 3) for kind, marks in sorted(right.items())}
    table["all"] = round(sum(map(sum, right.values())) / count, 4)
    return table, wrong


def markdown(table: Table, of: str = "prompts") -> str:
    """Write a table of pictures' scores."""
    columns = list(next(iter(table.values())))
    lines = [f"| {of} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[c]:.2f}" for c in columns) + " |" for name, row in table.items()]
    return "\n".join(lines)
