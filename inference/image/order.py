"""Requests in the image engine: an order and its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from inference.image.ask import ImageAsk
from inference.image.events import Event
from inference.image.families import Condition
from inference.job import Job


@dataclass(slots=True, eq=False)
class Order(Job[Event]):
    """One request in the engine; only the engine's thread moves it."""

    ask: ImageAsk
    image: Image | None = None
    mask: Image | None = None
    key: str = ""
    """Names its checkpoints; empty: none are kept."""
    number: int = 0
    """In order of arrival."""
    pictures: list[Picture] = field(default_factory=list)
    delivered: int = 0
    """Pictures whose files were handed out."""
    shown: int | None = None
    """The queue position that was last told."""


@dataclass(slots=True, eq=False)
class Picture:
    """One image of an order, on its way through its steps."""

    order: Order
    index: int
    seed: int
    condition: Condition
    scheduler: Any
    timesteps: Tensor
    generator: torch.Generator
    latents: Tensor
    """In plain order in memory, always: kernels choose by that, and a checkpoint keeps no other."""
    room: int
    """Lanes of its size that fit into one call."""
    scaled: Tensor | None = None
    """Its latents as the denoiser takes them at the next step; kept, since scaling may count a scheduler's calls."""
    source: Tensor | None = None
    """Latents of the image that is changed inside a mask."""
    noise: Tensor | None = None
    mask: Tensor | None = None
    """1 where it is painted over, at the size of the latents."""
    at: int = 0
    """Steps done."""
    turn: int = -1
    """The tick in which it last went on."""
    stepped_at: float = 0.0
    step_s: float = 0.0
    """Seconds between its steps, smoothed."""

    @property
    def lanes(self) -> int:
        """Lanes that it takes in the denoiser's call."""
        return len(self.condition.lanes)

    @property
    def steps(self) -> int:
        """Steps in all; fewer than asked for when an image is changed."""
        return len(self.timesteps)

    @property
    def bucket(self) -> tuple[Any, ...]:
        """What must be equal for pictures to share a call: latent shape and the shapes of the inputs."""
        inputs = self.condition.lanes[0]
        return (tuple(self.latents.shape[1:]), tuple(sorted((k, tuple(v.shape[1:])) for k, v in inputs.items())))

    @property
    def cost(self) -> float:
        """Cost of one step: lanes times latent pixels."""
        return self.lanes * self.order.ask.width * self.order.ask.height / 64
