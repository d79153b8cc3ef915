"""Train and score moa-tiny-vision: `python -m inference.training.vision --out FOLDER`.

It is an OWL-ViT (Minderer et al., 2022, arXiv:2205.06230) small enough to ship. Each cell of the picture is compared
with the texts that are asked for, and says where the thing is that it tells of. Unlike the original it is trained at
once, with each cell's text and box given by the drawing, so that no matching is needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as f
from torch import Tensor
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection

from inference.training import sights
from inference.training.captions import make_tokenizer
from inference.training.loop import Recipe, Run, dice, fit
from inference.training.sights import ABSENT, NAMES, Sight, Targets

LENGTH: Final = 16
"""Tokens of a text, with the marks at both ends."""
THRESHOLD: Final = 0.4
"""A thing is there from this score on."""
_WIDTH: Final = 128
_BATCH: Final = 24
_ABSENT: Final = 20
STEPS: Final = 1600
CAPTIONS: Final = 20000
"""That the tokenizer is learned from."""
HELD_OUT_SEED: Final = 777


class Seer(torch.nn.Module):
    """The network as it is trained: pictures and texts to what each cell says.

    Args:
        network: The OWL-ViT.
        tokenizer: Its tokenizer.
    """

    def __init__(self, network: OwlViTForObjectDetection, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.network = network
        self._tokenizer = tokenizer

    def texts(self, texts: list[str]) -> Tensor:
        """Give the texts' embeddings, (texts, width)."""
        read = self._tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        state: Any = self.network.owlvit.text_model(
            input_ids=read.input_ids.to(self.network.device), attention_mask=read.attention_mask.to(self.network.device)
        )
        return f.normalize(self.network.owlvit.text_projection(state.pooler_output), dim=-1)

    def forward(self, pixels: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits (pictures, 64, texts) and boxes (pictures, 64, 4)."""
        grid, _ = self.network.image_embedder(pixel_values=pixels)
        cells = grid.flatten(1, 2)
        logits, _ = self.network.class_predictor(cells, texts.expand(len(cells), -1, -1))
        return logits, self.network.box_predictor(cells, grid)


def build(seed: int, captions: int = CAPTIONS) -> tuple[OwlViTForObjectDetection, CLIPTokenizer]:
    """Give the network with random weights, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(seed, captions)
    vocabulary = len(tokenizer.get_vocab())
    marks = tokenizer.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"])
    config = OwlViTConfig(
        text_config={
            "vocab_size": vocabulary, "hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": LENGTH, "bos_token_id": marks[0],
            "eos_token_id": marks[1], "pad_token_id": marks[1],
        },
        vision_config={
            "hidden_size": _WIDTH, "intermediate_size": 3 * _WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": sights.SIDE, "patch_size": sights.SIDE // sights.GRID,
        },
        projection_dim=_WIDTH,
    )  # fmt: skip
    network = OwlViTForObjectDetection(config)
    # The library's own start drives every box into the sigmoid's flat ends, where nothing is learned.
    torch.nn.init.zeros_(network.box_head.dense2.weight)
    torch.nn.init.zeros_(network.box_head.dense2.bias)
    # Nearly every cell has nothing to say about nearly every text: begin there.
    for head in (network.class_head.logit_scale, network.class_head.logit_shift):
        torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(network.class_head.logit_scale.bias, 9.0)
    torch.nn.init.constant_(network.class_head.logit_shift.bias, -0.5)
    return network, tokenizer


def train(run: Run, steps: int = STEPS, captions: int = CAPTIONS) -> Path:
    """Train from nothing; give the model's folder."""
    network, tokenizer = build(run.seed, captions)
    seer = Seer(network, tokenizer).to(run.device).train()
    folder = run.out / "moa-tiny-vision"

    def loss(step: int) -> Tensor:
        rng = dice(run.seed, step)
        seen = [sights.sight(rng) for _ in range(_BATCH)]
        wanted = sights.targets(seen)
        phrases = [rng.choice(words) for words in NAMES.values()] + rng.sample(ABSENT, _ABSENT)
        texts = seer.texts([sights.worded(rng, phrase) for phrase in phrases])
        logits, boxes = seer(sights.pixels(seen).to(run.device), texts)
        return told(logits.cpu(), wanted) + placed(boxes.cpu(), wanted)

    fit(loss, {"vision": network}, Recipe("vision", steps, lr=2e-3, ema=0.995), run, lambda: save(seer, folder))
    save(seer, folder)
    return folder


def told(logits: Tensor, wanted: Targets) -> Tensor:
    """Give the focal loss (Lin et al., 2017) of what the cells say, per thing to be told of."""
    named = f.pad(wanted.named, (0, logits.shape[-1] - wanted.named.shape[-1]))
    counted = (named >= 0).float()
    right = named.clamp(min=0)
    chance = logits.sigmoid()
    missed = right * (1 - chance) + (1 - right) * chance
    each = f.binary_cross_entropy_with_logits(logits, right, reduction="none") * missed.square() * counted
    return each.sum() / right.sum().clamp(min=1) * 2


def placed(boxes: Tensor, wanted: Targets) -> Tensor:
    """Give how far boxes lie from where they should: the distance and the generalised overlap."""
    if not wanted.telling.any():
        return boxes.sum() * 0
    given, right = boxes[wanted.telling], wanted.boxes[wanted.telling]
    return 5 * (given - right).abs().mean() * 4 + 1 - overlap(given, right, generalised=True).mean()


def overlap(one: Tensor, other: Tensor, *, generalised: bool = False) -> Tensor:
    """Give the intersection over union of boxes by pairs; generalised, apart boxes are below 0 (arXiv:1902.09630)."""
    low1, high1 = one[..., :2] - one[..., 2:] / 2, one[..., :2] + one[..., 2:] / 2
    low2, high2 = other[..., :2] - other[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2
    shared = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(-1)
    union = one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - shared
    ratio = shared / union.clamp(min=1e-6)
    if not generalised:
        return ratio
    hull = (torch.maximum(high1, high2) - torch.minimum(low1, low2)).prod(-1).clamp(min=1e-6)
    return ratio - (hull - union) / hull


def save(seer: Seer, folder: Path) -> None:
    """Write a transformers folder: float16 weights, tokenizer, how pictures are read, and what it knows."""
    half = OwlViTForObjectDetection(seer.network.config)
    half.load_state_dict(seer.network.state_dict())
    half.half().save_pretrained(folder)
    seer._tokenizer.save_pretrained(folder)
    reading = {
        "image_processor_type": "OwlViTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
        "do_center_crop": False, "resample": 2, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "size": {"height": sights.SIDE, "width": sights.SIDE},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(reading, indent=1) + "\n")
    known = {"scenes": sights.SCENES, "things": sights.things()}
    (folder / "vocabulary.json").write_text(json.dumps(known, indent=1) + "\n")


def scores(folder: Path, count: int, seed: int = HELD_OUT_SEED) -> dict[str, float]:
    """Score a model's folder on pictures that training never drew, half of them moved, blurred and dimmed."""
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    network = OwlViTForObjectDetection.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    seer = Seer(network.eval(), tokenizer)
    things = list(NAMES)[:6]
    tally = {"desk right": 0, "true": 0, "false": 0, "missed": 0}
    overlaps: list[float] = []
    with torch.inference_mode():
        queries = seer.texts(["a photo of a desk", *(f"a photo of a {thing}" for thing in things)])
        for i in range(count):
            seen = sights.sight(dice(seed, i), rough=i % 2 == 1)
            logits, boxes = seer(sights.pixels([seen]), queries)
            best, at = logits[0].sigmoid().max(0)
            tally["desk right"] += bool(best[0] >= THRESHOLD) == seen.shows("desk")
            for j, thing in enumerate(things, 1):
                there, said = seen.shows(thing), bool(best[j] >= THRESHOLD)
                tally["true"] += there and said
                tally["false"] += said and not there
                tally["missed"] += there and not said
                if there and said:
                    overlaps.append(_placed_right(seen, thing, boxes[0, at[j]]))
    return {
        "desk yes/no": tally["desk right"] / count,
        "presence F1": 2 * tally["true"] / max(1, 2 * tally["true"] + tally["false"] + tally["missed"]),
        "mean IoU": sum(overlaps) / max(1, len(overlaps)),
    }


def _placed_right(seen: Sight, thing: str, box: Tensor) -> float:
    one = next(each for each in seen.found if each.name == thing)
    right = torch.tensor(
        [(one.left + one.right) / 2, (one.top + one.bottom) / 2, one.right - one.left, one.bottom - one.top]
    )
    return float(overlap(box, right))


def main() -> None:
    """Train, or only score, as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m inference.training.vision", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and checkpoints; resumes from it")
    parser.add_argument("--budget", type=float, help="minutes; default: the recipe's steps")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-score", type=Path, help="score this folder instead")
    parser.add_argument("--count", type=int, default=1000, help="pictures to score on")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    budget_s = options.budget * 60 if options.budget else None
    folder = options.only_score
    if folder is None:
        options.out.mkdir(parents=True, exist_ok=True)
        folder = train(Run(options.out, torch.device("cpu"), options.seed, budget_s), options.steps)
    print(json.dumps({name: round(value, 4) for name, value in scores(folder, options.count).items()}))


if __name__ == "__main__":
    main()
