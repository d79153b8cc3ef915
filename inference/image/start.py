"""Begin a picture: prompts, scheduler, generator and first latents, as the plain pipelines do it.

The order in which the generator is drawn from is diffusers' own (text to image, image to image, inpainting), so that a
seed gives the picture that the plain pipeline gives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inference.image.families import Condition, Family
from inference.image.families.base import plain
from inference.image.order import Order, Picture
from services.common.errors import InvalidField

Room = Callable[[Order, Condition], int]
"""Gives how many lanes of an order's size fit into one call."""


def pictures(family: Family, order: Order, room: Room) -> list[Picture]:
    """Make an order's pictures ready for their first step. Raises InvalidField for what the model refuses."""
    ask = order.ask
    if ask.scheduler and ask.scheduler not in family.schedulers:
        raise InvalidField(
            f"this model's scheduler must be one of {', '.join(family.schedulers) or 'its own'}", param="scheduler"
        )
    condition = family.condition(ask.prompt, ask.negative, ask.guidance, ask.width, ask.height)
    fit = room(order, condition)
    return [_picture(family, order, index, condition, fit) for index in range(ask.count)]


def _picture(family: Family, order: Order, index: int, condition: Condition, room: int) -> Picture:
    ask = order.ask
    scheduler = family.scheduler(ask.scheduler, ask.steps, ask.width, ask.height)
    seed = wrapped(ask.seed + index)
    generator = torch.Generator().manual_seed(seed)
    shape = family.latent_shape(ask.width, ask.height)
    made = Picture(
        order=order,
        index=index,
        seed=seed,
        condition=condition,
        scheduler=scheduler,
        timesteps=scheduler.timesteps,
        generator=generator,
        latents=torch.empty(0),
        room=room,
    )
    if order.image is None:
        made.latents = plain(family.initial(family.packed(family.noise(shape, generator)), scheduler))
        return made
    skipped = family.skipped(ask.steps, ask.strength, scheduler)
    made.timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    latents = family.packed(family.encode(order.image, generator))
    noise = family.packed(family.noise(shape, generator))
    if order.mask is not None and ask.strength == 1:
        made.latents = plain(family.initial(noise, scheduler))
    else:
        made.latents = plain(family.noised(latents, noise, made.timesteps[:1], scheduler))
    if order.mask is not None:
        made.source, made.noise = latents, noise
        made.mask = _latent_mask(order, family, shape)
        # The pipeline encodes the masked image too, which draws from the generator where the VAE is sampled.
        if hasattr(family.vae, "quant_conv"):
            family.noise(shape, generator)
    return made


def wrapped(seed: int) -> int:
    """Bring a seed back into 64 signed bits: the one after the largest is the least."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)


def _latent_mask(order: Order, family: Family, shape: tuple[int, ...]) -> Tensor:
    assert order.mask is not None
    white = torch.from_numpy(np.asarray(order.mask, dtype=np.float32) / 255)[None, None]
    small = torch.nn.functional.interpolate((white >= 0.5).float(), size=shape[-2:])
    return family.packed(small.expand(shape)).to(family.device, family.dtype)


def blended(family: Family, picture: Picture) -> None:
    """Put the original back outside the mask, noised as far as the next step expects."""
    if picture.mask is None:
        return
    assert picture.source is not None
    assert picture.noise is not None
    original = picture.source
    if picture.at < picture.steps:
        following = picture.timesteps[picture.at : picture.at + 1]
        original = family.noised(original, picture.noise, following, picture.scheduler)
    picture.latents = plain((1 - picture.mask) * original + picture.mask * picture.latents)
