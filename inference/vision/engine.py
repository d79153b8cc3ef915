"""A vision model at work: one image after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch

from inference import engine
from inference.fair import NAMELESS, Flow
from inference.vision.families import Family
from inference.vision.queue import Look, Queue, Seen

T = TypeVar("T")


class VisionEngine(engine.Engine[Look, Look, Seen | None]):
    """Takes looks at images.

    Args:
        name: The model's catalogue id.
        family: The loaded model.
        max_waiting: Looks of one flow that may wait; more are refused.
    """

    makes: ClassVar[str] = "look at the image"

    def __init__(self, name: str, family: Family, *, max_waiting: int = 16) -> None:
        self.family = family
        super().__init__(name, Queue(name, max_waiting=max_waiting), size_bytes=family.size_bytes)

    async def look(self, work: Callable[[Family], T], flow: Flow = NAMELESS) -> T:
        """Run work on the model; one that is cancelled before its turn is not run.

        Raises QueueFull when too many wait; MoaError as the work does; Internal when it fails otherwise.
        """
        seen: Seen = await self.result(Look(work, flow=flow))
        found: T = seen.found
        return found

    @torch.inference_mode()
    def tick(self) -> None:
        """Take the next look."""
        super().tick()

    def _admit(self, entering: list[Look]) -> None:
        """Do nothing: a look is taken in one step."""

    def _step(self, batch: list[Look]) -> Seen | None:
        (look,) = batch
        with self._blaming(look, "look"):
            return Seen(look.work(self.family))
        return None

    def _finish(self, batch: list[Look], output: Seen | None) -> None:
        if output is not None:
            self._end(batch[0], output)
