"""Train two LoRAs for moa-tiny-image that combine: a style, framed, and a subject, the moa bird.

Files are in the form that `load_lora_weights` of diffusers reads, which needs the package peft. Training and `merge`
need only torch: the low-rank part is a parametrization of the layer's weight.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inference.training import autoencoder, captions
from inference.training.loop import Recipe, Run, dice, fit, rng
from inference.training.lora_pictures import framed, moa, other
from inference.training.pictures import Drawing, draw
from inference.training.scores import load_pipeline

RANK: Final = 8
KINDS: Final = ("framed", "moa")
STEPS: Final = 400
_PICTURES: Final = 1536
_BATCH: Final = 24
_UNPROMPTED: Final = 0.15  # share of captions that are dropped, for guidance
_LAYERS: Final = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj", "conv_in", "conv_out")
_EDGE: Final = 2  # cells at each side of a framed latent that are learned: the frame's and its neighbour
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


class Samples:
    """Latents of drawn pictures with what their captions mean to the text encoder, which is not trained."""

    def __init__(self, pipeline: StableDiffusionPipeline, drawn: list[Drawing], run: Run) -> None:
        latents, texts = [], []
        with torch.no_grad():
            for at in range(0, len(drawn), 64):
                part = drawn[at : at + 64]
                made = pipeline.vae.encoder(autoencoder.pixels([d.image for d in part]).to(run.device))
                latents.append(made * pipeline.vae.config.scaling_factor)
                texts.append(_text(pipeline, [d.caption for d in part]))
        self.latents, self.texts = torch.cat(latents), torch.cat(texts)


def _text(pipeline: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    out: Tensor = pipeline.text_encoder(captions.tokens(pipeline.tokenizer, prompts).to(pipeline.device))[0]
    return out


class Lesson:
    """A LoRA's loss: the velocity of what is taught, and the bare model's velocity on what is kept.

    What is kept starts at loss near zero and costs little while the change stays away from it. With drawn pictures as
    its aim instead, all that the bare model does not know of them would pull at the LoRA too.

    Args:
        bare: The denoiser as it was.
        taught: What is learned.
        kept: The samples on which the bare model is asked.
        inside: Of a style, whose `kept` are its `taught` before: which cells of the latent stay, (16, 16). None: of a
            subject, whose `kept` are other pictures, and one half of each batch.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        bare: nn.Module,
        taught: Samples,
        kept: Samples,
        run: Run,
        batch: int = _BATCH,
        inside: Tensor | None = None,
    ) -> None:
        self._unet, self._bare, self._taught, self._kept, self._run = pipeline.unet, bare, taught, kept, run
        self._signal = pipeline.scheduler.alphas_cumprod.to(run.device)
        with torch.no_grad():
            self._empty = _text(pipeline, [""])[0]
        self._batch, self._inside = batch, inside

    def __call__(self, step: int) -> Tensor:
        """Give a step's loss. The captions of a subject are never dropped, so that it needs its name."""
        generator, device = rng(self._run.seed + 3, step), self._run.device
        chosen = torch.randint(len(self._taught.latents), (self._batch,), generator=generator).to(device)
        clean, before, text = self._taught.latents[chosen], self._kept.latents[chosen], self._taught.texts[chosen]
        dropped = (torch.rand(self._batch, generator=generator) < _UNPROMPTED).to(device)
        if self._inside is None:
            new = (torch.arange(self._batch) < self._batch // 2).to(device)
            dropped &= ~new
            clean = torch.where(new.view(-1, 1, 1, 1), clean, before)
            text = torch.where(new.view(-1, 1, 1), text, self._kept.texts[chosen])
            stays = ~new.view(-1, 1, 1, 1)
        else:
            stays = self._inside
        text = torch.where(dropped.view(-1, 1, 1), self._empty, text)
        spread = (torch.rand(1, generator=generator) + torch.arange(self._batch) / self._batch) % 1
        times = (spread * len(self._signal)).long()[torch.randperm(self._batch, generator=generator)].to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        share = self._signal[times].view(-1, 1, 1, 1)
        signal, level = share.sqrt(), (1 - share).sqrt()
        with self._run.autocast():
            with torch.no_grad():
                old = self._bare(signal * before + level * noise, times, text, return_dict=False)[0].float()
            made = self._unet(signal * clean + level * noise, times, text, return_dict=False)[0]
        aim = torch.where(stays, old, signal * noise - level * clean)
        loss: Tensor = (made.float() - aim).pow(2).mean()
        return loss


def train(kind: str, model: Path, run: Run, steps: int = STEPS, count: int = _PICTURES, batch: int = _BATCH) -> Path:
    """Train one LoRA, `framed` or `moa`, for a model on `count` pictures of each sort; give its folder."""
    pipeline = load_pipeline(model, run.device)
    unet: nn.Module = pipeline.unet
    if run.device.type == "cpu":
        pipeline.unet.set_attn_processor(AttnProcessor())
    unet.requires_grad_(False)
    bare = copy.deepcopy(unet)
    torch.manual_seed(run.seed)
    dealt = dice(run.seed + 5)
    inside = None
    if kind == "moa":
        taught, before = [moa(dealt) for _ in range(count)], [other(dealt) for _ in range(count)]
    else:
        before = [draw(dealt) for _ in range(count)]
        taught = [Drawing(framed(drawn.image), drawn.caption) for drawn in before]
        inside = torch.zeros(16, 16, dtype=torch.bool, device=run.device)
        inside[_EDGE:-_EDGE, _EDGE:-_EDGE] = True
    samples, kept = (Samples(pipeline, drawn, run) for drawn in (taught, before))
    parts: dict[str, LowRank] = {}
    for name, module in list(layers(unet)):
        parts[name] = LowRank(_weight(module)).to(run.device)
        parametrize.register_parametrization(module, "weight", parts[name])
    recipe = Recipe(f"lora-{kind}", steps, lr=3e-3, warmup=20, ema=0.98, weight_decay=0.0)
    folder = run.out / kind

    def keep() -> None:
        save(parts, folder)

    fit(Lesson(pipeline, bare, samples, kept, run, batch, inside), {"unet": unet}, recipe, run, keep)
    keep()
    return folder


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def train_all(model: Path, run: Run) -> None:
    """Train every LoRA for a model."""
    for kind in KINDS:
        print(train(kind, model, run))


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
