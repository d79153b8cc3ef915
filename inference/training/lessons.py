"""The losses of the LoRAs: what is taught comes from drawings, what is kept from the bare model."""

from __future__ import annotations

from typing import Final

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from inference.training import autoencoder, captions
from inference.training.loop import Run, rng
from inference.training.pictures import Drawing
from inference.training.scores import GUIDANCE

_UNPROMPTED: Final = 0.15  # share of a subject's kept captions that are dropped, for guidance
_GUIDED: Final = 0.1  # weight of the guided error, whose square is up to (2 * GUIDANCE - 1)**2 times that of its parts


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


class _Lesson:
    """What both lessons need.

    What is kept has the bare model's velocity for its aim: its loss starts near zero and costs little while the change
    stays away from it. With drawn pictures as its aim, all that the bare model does not know of them would pull at the
    LoRA too.

    Args:
        bare: The denoiser as it was.
        taught: What is learned.
        kept: The samples on which the bare model is asked.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        bare: nn.Module,
        taught: Samples,
        kept: Samples,
        run: Run,
        batch: int,
    ) -> None:
        self._unet, self._bare, self._taught, self._kept, self._run = pipeline.unet, bare, taught, kept, run
        self._signal = pipeline.scheduler.alphas_cumprod.to(run.device)
        self._batch = batch
        with torch.no_grad():
            self._empty = _text(pipeline, [""])

    def _chosen(self, generator: torch.Generator, count: int) -> Tensor:
        return torch.randint(len(self._taught.latents), (count,), generator=generator).to(self._run.device)

    def _times(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Give times spread evenly over the noise levels, and the shares of signal and of noise at them."""
        spread = (torch.rand(1, generator=generator) + torch.arange(count) / count) % 1
        times = (spread * len(self._signal)).long()[torch.randperm(count, generator=generator)].to(self._run.device)
        share = self._signal[times].view(-1, 1, 1, 1)
        return times, share.sqrt(), (1 - share).sqrt()

    def _ask(self, unet: nn.Module, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        with self._run.autocast():
            made: Tensor = unet(latents, times, text, return_dict=False)[0]
        return made.float()


class Subject(_Lesson):
    """A subject's loss: it is taught in one half of each batch, and other pictures are kept in the other half.

    The captions of a subject are never dropped, so that it needs its name.
    """

    def __call__(self, step: int) -> Tensor:
        """Give a step's loss."""
        generator, device = rng(self._run.seed + 3, step), self._run.device
        chosen = self._chosen(generator, self._batch)
        new = (torch.arange(self._batch) < self._batch // 2).to(device)
        dropped = (torch.rand(self._batch, generator=generator) < _UNPROMPTED).to(device) & ~new
        times, signal, level = self._times(generator, self._batch)
        before = self._kept.latents[chosen]
        clean = torch.where(new.view(-1, 1, 1, 1), self._taught.latents[chosen], before)
        text = torch.where(new.view(-1, 1, 1), self._taught.texts[chosen], self._kept.texts[chosen])
        text = torch.where(dropped.view(-1, 1, 1), self._empty, text)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        with torch.no_grad():
            old = self._ask(self._bare, signal * before + level * noise, times, text)
        made = self._ask(self._unet, signal * clean + level * noise, times, text)
        aim = torch.where(new.view(-1, 1, 1, 1), signal * noise - level * clean, old)
        loss: Tensor = (made - aim).pow(2).mean()
        return loss


class Style(_Lesson):
    """A style's loss: `taught` are `kept` in the style, in the same order.

    Each sample is asked with its caption and without one, on the same noise, for a picture is made from the difference
    of the two: the errors of each, and that of their guided sum, which would otherwise be up to seven times as large.

    Args:
        new: Which cells of the latent, (16, 16), are the style's own, to be learned from the drawing. In the others the
            aim is the bare model's velocity before the style, moved by what the style adds to the drawing.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        bare: nn.Module,
        taught: Samples,
        kept: Samples,
        run: Run,
        batch: int,
        new: Tensor,
    ) -> None:
        super().__init__(pipeline, bare, taught, kept, run, batch)
        self._new = new

    def __call__(self, step: int) -> Tensor:
        """Give a step's loss."""
        generator, count = rng(self._run.seed + 3, step), self._batch // 2
        chosen = self._chosen(generator, count)
        times, signal, level = self._times(generator, count)
        before, clean, text = self._kept.latents[chosen], self._taught.latents[chosen], self._taught.texts[chosen]
        text = torch.cat([text, self._empty.expand_as(text)])
        noise = torch.randn(clean.shape, generator=generator).to(self._run.device)
        with torch.no_grad():
            old = self._ask(self._bare, (signal * before + level * noise).repeat(2, 1, 1, 1), times.repeat(2), text)
        made = self._ask(self._unet, (signal * clean + level * noise).repeat(2, 1, 1, 1), times.repeat(2), text)
        kept = old - (level * (clean - before)).repeat(2, 1, 1, 1)
        error = made - torch.where(self._new, (signal * noise - level * clean).repeat(2, 1, 1, 1), kept)
        prompted, unprompted = error.chunk(2)
        guided = unprompted + GUIDANCE * (prompted - unprompted)
        return error.pow(2).mean() + _GUIDED * guided.pow(2).mean()
