"""Train the autoencoder that turns 128×128 pictures into 4×16×16 latents and back."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor

from inference.training.loop import Recipe, Run, dice, fit, rng
from inference.training.pictures import draw

_BATCH: Final = 16
_CROP: Final = 64
_STRIDE: Final = 8  # pixels a latent covers; crops start on its multiples
_NOISE: Final = 0.08  # added to latents, since the denoiser's are never quite clean
_GRADIENTS: Final = 0.5
_LATENT_SPREAD: Final = 0.02


def make_autoencoder() -> AutoencoderTiny:
    """Give the network with random weights: 0.42 M parameters."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(0, 1, 2, 2),
        num_decoder_blocks=(3, 3, 2, 0),
        latent_channels=4,
    )


def pixels(images: list[Image.Image]) -> Tensor:
    """Give pictures as (pictures, 3, height, width) in -1..1."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


class Crops:
    """Random crops of a pool of pictures.

    Args:
        seed: Of the pictures.
        pool: How many pictures to draw; about two milliseconds each.
    """

    def __init__(self, seed: int, pool: int) -> None:
        dealt = dice(seed, 1)
        self._pool = torch.from_numpy(np.stack([np.asarray(draw(dealt).image) for _ in range(pool)]))

    def draw(self, generator: torch.Generator) -> Tensor:
        """Give a batch, (16, 3, 64, 64) in -1..1."""
        chosen = torch.randint(0, len(self._pool), (_BATCH,), generator=generator)
        places = (self._pool.shape[1] - _CROP) // _STRIDE + 1
        top, left = (_STRIDE * int(torch.randint(0, places, (), generator=generator)) for _ in range(2))
        cut = self._pool[chosen, top : top + _CROP, left : left + _CROP]
        return (cut.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def difference(made: Tensor, wanted: Tensor) -> Tensor:
    """Give the reconstruction loss: values, squares, and edges both ways."""
    values = F.l1_loss(made, wanted) + F.mse_loss(made, wanted)
    across, down = (F.l1_loss(made.diff(dim=dim), wanted.diff(dim=dim)) for dim in (-1, -2))
    loss: Tensor = values + _GRADIENTS * (across + down)
    return loss


def train(run: Run, steps: int, pool: int) -> AutoencoderTiny:
    """Train encoder and decoder; latents come out with mean 0 and spread 1."""
    torch.manual_seed(run.seed)
    network = make_autoencoder().to(run.device, memory_format=torch.channels_last)
    crops = Crops(run.seed, pool)

    def loss(step: int) -> Tensor:
        generator = rng(run.seed, step)
        wanted = crops.draw(generator).to(run.device)
        with run.autocast():
            latents = network.encoder(wanted)
        latents = latents.float()
        spread = latents.mean((0, 2, 3)).pow(2).mean() + (latents.std((0, 2, 3)) - 1).pow(2).mean()
        noise = torch.randn(latents.shape, generator=generator).to(run.device)
        with run.autocast():
            made = network.decoder(latents + _NOISE * noise)
        off: Tensor = _LATENT_SPREAD * spread
        return difference(made.float(), wanted) + off

    fit(loss, {"autoencoder": network}, Recipe("autoencoder", steps, lr=2e-3, ema=0.995), run)
    with torch.no_grad():
        latents = [network.encoder(crops.draw(rng(run.seed, steps + i)).to(run.device)) for i in range(8)]
    network.register_to_config(scaling_factor=round(1 / float(torch.cat(latents).std()), 4))
    network.eval()
    return network


def polish(network: AutoencoderTiny, run: Run, steps: int, pool: int) -> AutoencoderTiny:
    """Train the decoder further. Latents stay as they are, so that a denoiser trained on them stays right."""
    network.encoder.requires_grad_(False)
    network.decoder.requires_grad_(True)
    network.to(run.device, memory_format=torch.channels_last)
    crops = Crops(run.seed + 1, pool)

    def loss(step: int) -> Tensor:
        generator = rng(run.seed + 1, step)
        wanted = crops.draw(generator).to(run.device)
        with torch.no_grad(), run.autocast():
            latents = network.encoder(wanted)
        strength = (0.0, 0.05, 0.1)[step % 3]
        noise = torch.randn(latents.shape, generator=generator).to(run.device)
        with run.autocast():
            made = network.decoder(latents + strength * noise)
        return difference(made.float(), wanted)

    fit(loss, {"decoder": network.decoder}, Recipe("decoder", steps, lr=1.5e-3, ema=0.995), run)
    network.eval()
    return network


@torch.no_grad()
def psnr(network: AutoencoderTiny, seed: int = 9, count: int = 96) -> float:
    """Give the mean peak signal-to-noise ratio over fresh pictures, in dB."""
    dealt = dice(seed, 2)
    wanted = pixels([draw(dealt).image for _ in range(count)]).to(network.device)
    made = network.decoder(network.encoder(wanted)).clamp(-1, 1)
    error = ((made - wanted) / 2).pow(2).mean((1, 2, 3))
    return float((-10 * error.log10()).mean())
