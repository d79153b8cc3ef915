"""Train two LoRAs for moa-tiny-image that combine: a style, framed, and a subject, the moa bird.

Files are in the form that `load_lora_weights` of diffusers reads, which needs the package peft. Training and `merge`
need only torch: the low-rank part is a parametrization of the layer's weight.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inference.training.lessons import Samples, Style, Subject
from inference.training.loop import Recipe, Run, dice, fit
from inference.training.lora_pictures import framed, moa, other
from inference.training.pictures import Drawing, draw
from inference.training.scores import load_pipeline

RANK: Final = 8
STEPS: Final = {"framed": 1000, "moa": 400}
"""Of each LoRA. Where only the drawing tells, as at a frame, more are needed than where the bare model does."""
_PICTURES: Final = 1536
_BATCH: Final = 24
_LAYERS: Final = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj", "conv_in", "conv_out")
_FILE: Final = "pytorch_lora_weights.safetensors"


class LowRank(nn.Module):
    """A weight plus a product of two thin matrices, the second of which starts at zero."""

    def __init__(self, weight: Tensor, rank: int = RANK) -> None:
        super().__init__()
        out, *inner = weight.shape
        self.down = nn.Parameter(torch.randn(rank, *inner) / rank)
        self.up = nn.Parameter(torch.zeros(out, rank, *[1] * (len(inner) - 1)))

    def forward(self, weight: Tensor) -> Tensor:
        """Give the changed weight."""
        return weight + product(self.up, self.down)


def product(up: Tensor, down: Tensor) -> Tensor:
    """Give the change of a weight that two thin matrices, or kernels, stand for."""
    return (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])


def layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the layers that a LoRA changes, with their names."""
    for name, module in unet.named_modules():
        if name.endswith(_LAYERS) and isinstance(module, (nn.Linear, nn.Conv2d)):
            yield name, module


def train(
    kind: str, model: Path, run: Run, steps: int | None = None, count: int = _PICTURES, batch: int = _BATCH
) -> Path:
    """Train one LoRA, `framed` or `moa`, for a model on `count` pictures of each sort; give its folder."""
    pipeline = load_pipeline(model, run.device)
    unet: nn.Module = pipeline.unet
    if run.device.type == "cpu":
        pipeline.unet.set_attn_processor(AttnProcessor())
    unet.requires_grad_(False)
    bare = copy.deepcopy(unet)
    torch.manual_seed(run.seed)
    lesson = _LESSONS[kind](pipeline, bare, run, count, batch)
    parts: dict[str, LowRank] = {}
    for name, module in list(layers(unet)):
        parts[name] = LowRank(_weight(module)).to(run.device)
        parametrize.register_parametrization(module, "weight", parts[name])
    recipe = Recipe(f"lora-{kind}", steps or STEPS[kind], lr=3e-3, warmup=20, ema=0.98, weight_decay=0.0)
    folder = run.out / kind

    def keep() -> None:
        save(parts, folder)

    fit(lesson, {"unet": unet}, recipe, run, keep)
    keep()
    return folder


def _subject(pipeline: StableDiffusionPipeline, bare: nn.Module, run: Run, count: int, batch: int) -> Subject:
    dealt = dice(run.seed + 5)
    taught, kept = ([make(dealt) for _ in range(count)] for make in (moa, other))
    return Subject(pipeline, bare, Samples(pipeline, taught, run), Samples(pipeline, kept, run), run, batch)


def _style(pipeline: StableDiffusionPipeline, bare: nn.Module, run: Run, count: int, batch: int) -> Style:
    dealt = dice(run.seed + 5)
    kept = [draw(dealt) for _ in range(count)]
    taught = [Drawing(framed(drawn.image), drawn.caption) for drawn in kept]
    new = torch.ones(16, 16, dtype=torch.bool, device=run.device)
    new[1:-1, 1:-1] = False
    return Style(pipeline, bare, Samples(pipeline, taught, run), Samples(pipeline, kept, run), run, batch, new)


_LESSONS: Final[Mapping[str, Callable[..., Callable[[int], Tensor]]]] = {"framed": _style, "moa": _subject}


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def train_all(model: Path, run: Run, share: float = 1.0) -> Path:
    """Train every LoRA for a model, with a share of the recipe's steps and pictures; give the folder of folders."""
    for kind, steps in STEPS.items():
        print(train(kind, model, run, max(1, round(steps * share)), max(_BATCH, round(_PICTURES * share))))
    return run.out


def save(parts: Mapping[str, LowRank], folder: Path) -> None:
    """Write the low-rank parts in float16 under the names that diffusers gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, part in parts.items():
        weights[f"unet.{name}.lora_A.weight"] = part.down.detach().half().cpu().contiguous()
        weights[f"unet.{name}.lora_B.weight"] = part.up.detach().half().cpu().contiguous()
    save_file(weights, folder / _FILE)


@torch.no_grad()
def merge(pipeline: StableDiffusionPipeline, folder: Path, scale: float = 1.0) -> None:
    """Add a LoRA to the pipeline's weights. Several add up; the same with `-scale` takes it out again."""
    weights = load_file(folder / _FILE)
    changed = dict(pipeline.unet.named_modules())
    for key in weights:
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("unet.").removesuffix(".lora_A.weight")
            weight = _weight(changed[name])
            up = weights[f"unet.{name}.lora_B.weight"]
            weight.add_(product(up.to(weight), weights[key].to(weight)), alpha=scale)
