"""The image engine: one denoiser call a tick for the pictures of many requests.

Orders join and leave between ticks (`inference.engine`), each with its own prompt, steps, guidance, sampler, seed,
source image and mask. Each picture takes its own scheduler step, and those that are done are decoded one at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import ClassVar

import torch
from torch import Tensor

from inference import engine
from inference.engine import Report
from inference.fair import NAMELESS, Flow
from inference.image import codec, start
from inference.image.ask import ImageAsk
from inference.image.checkpoints import Checkpoints
from inference.image.deliver import Delivery, facts
from inference.image.denoise import Denoiser
from inference.image.events import Done, Made, Stepped
from inference.image.families import Condition, Family
from inference.image.families.base import plain
from inference.image.loras import Adapters
from inference.image.memory import Budget
from inference.image.order import Order, Picture
from inference.image.previews import Previewer
from inference.image.queue import Queue
from services.common.errors import InvalidField, MoaError

VERSION = "3"


class ImageEngine(engine.Engine[Order, Picture, list[Tensor | None]]):
    """Makes images for many requests at once with one model.

    Args:
        name: The model's catalogue id, for logs and metrics.
        family: The loaded pipeline.
        adapters: Its low-rank adapters.
        revision: Of the weights, for receipts.
        size_bytes: Of the weights.
        workers: Where images are decoded and encoded.
        most_lanes: Lanes of one denoiser call.
        fixed_lanes: Pad calls to so many lanes; 0: see `Lanes`.
        max_waiting: Orders that may wait.
        memory_bytes: Most bytes of one call; 0: what the device has left.
        warmed: Sizes that are run before the first request.
        checkpoints: Where unfinished pictures are kept; None: nowhere.
    """

    makes: ClassVar[str] = "image"

    def __init__(
        self,
        name: str,
        family: Family,
        *,
        adapters: Adapters,
        revision: str,
        size_bytes: int,
        workers: Executor,
        most_lanes: int = 8,
        fixed_lanes: int = 0,
        max_waiting: int = 64,
        memory_bytes: int = 0,
        warmed: Sequence[tuple[int, int]] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.queue = Queue(name, most_lanes=most_lanes, max_waiting=max_waiting)
        """What waits and runs, to be looked at; it changes from one tick to the next."""
        super().__init__(name, self.queue, size_bytes=size_bytes)
        self.family = family
        self.adapters = adapters
        self.revision = revision
        self.denoiser = Denoiser(name, family, adapters, most_lanes=most_lanes, fixed_lanes=fixed_lanes)
        self.lanes = self.denoiser.lanes
        built = f"moa-{VERSION} torch-{torch.__version__} {family.device} {family.dtype}".replace("torch.", "")
        self._delivery = Delivery(
            name,
            family,
            workers,
            receipt=functools.partial(facts, revision=revision, lanes=self.lanes.canonical, engine=built),
            finish=self._finished,
        )
        self._budget = Budget(family, memory_bytes)
        self._checkpoints = checkpoints
        self._previewer = Previewer(family)
        self._warmed = warmed

    @property
    def decodes(self) -> int:
        """How many pictures were decoded."""
        return self._delivery.decodes

    def warm(self, report: Report) -> None:
        """Run every number of lanes at the sizes to be warmed, until they are compiled and proven."""
        for number, (width, height) in enumerate(self._warmed):
            report(f"warming {width}x{height}", 0.98 + 0.02 * number / len(self._warmed))
            self.denoiser.warm(width, height)

    def prepare(
        self, ask: ImageAsk, *, flow: Flow = NAMELESS, key: str = "", sources: codec.InputImages | None = None
    ) -> Order:
        """Make an order of an ask. Its images are decoded unless they are given: not for the event loop's thread.

        `key` is the account's name of the order: asked again under it, an unfinished order goes on where it was.

        Raises UnsupportedMedia for a broken image, InvalidField for a size or an adapter that the model does not have.
        """
        for side in ("width", "height"):
            if getattr(ask, side) % self.family.side_step:
                raise InvalidField(f"this model's {side} must be a multiple of {self.family.side_step}", param=side)
        for name, _ in ask.loras:
            if name not in self.adapters.names:
                known = ", ".join(self.adapters.names) or "none"
                raise InvalidField(f"no LoRA {name[:100]!r}; this model has: {known}", param="loras")
        decoded = sources or codec.sources(ask.image, ask.mask, ask.width, ask.height)
        order = Order(ask=ask, image=decoded.image, mask=decoded.mask, flow=flow, key=key)
        if self._checkpoints is not None and key and ask.drawn:
            seed = self._checkpoints.seed(order)
            order.ask = ask if seed is None else dataclasses.replace(ask, seed=seed)
        return order

    @torch.inference_mode()
    def tick(self) -> None:
        """Let orders in, and take one step with the pictures of one bucket."""
        super().tick()

    def _admit(self, entering: list[Order]) -> None:
        for order in entering:
            with self._blaming(order, "begin"):
                self._begin(order)
            self.progress += 1

    def _step(self, batch: list[Picture]) -> list[Tensor | None]:
        """Return each picture's lanes, None for one that was lost."""
        return self.denoiser.predict(batch, lambda picture, error: self._fail(picture.order, error))

    def _rows(self, batch: list[Picture]) -> int:
        return sum(picture.lanes for picture in batch)

    def _finish(self, batch: list[Picture], output: list[Tensor | None]) -> None:
        """Take each picture's own step; hand out progress, previews and finished images."""
        for picture, predicted in zip(batch, output, strict=True):
            if predicted is not None and picture.order.live:
                self.progress += 1
                with self._blaming(picture.order, "step"):
                    self._go_on(picture, predicted)

    def _go_on(self, picture: Picture, predicted: Tensor) -> None:
        if picture.lanes == 2:
            hidden, shown = predicted[:1], predicted[1:]
            predicted = hidden + picture.order.ask.guidance * (shown - hidden)
        timestep = picture.timesteps[picture.at]
        picture.latents = plain(
            self.family.stepped(predicted, timestep, picture.latents, picture.scheduler, picture.generator)
        )
        picture.scaled = None
        picture.at += 1
        start.blended(self.family, picture)
        self._tell_step(picture)
        if self._checkpoints is not None:
            self._checkpoints.note(picture)
        if picture.at == picture.steps:
            self.queue.leave(picture)
            self._delivery.deliver(picture)

    def _begin(self, order: Order) -> None:
        if self._checkpoints is not None:
            self._checkpoints.begin(order)
        with self.adapters.applied({name: torch.full((1, 1), scale) for name, scale in order.ask.loras}):
            order.pictures = start.pictures(self.family, order, self._fitted)
        if self._checkpoints is not None:
            self._resume(order)

    def _resume(self, order: Order) -> None:
        """Put an order's pictures where another worker left them."""
        assert self._checkpoints is not None
        for picture in order.pictures:
            if self._checkpoints.restore(picture) and picture.at == picture.steps:
                self.queue.leave(picture)
                self._delivery.deliver(picture)

    def _fitted(self, order: Order, condition: Condition) -> int:
        """Return how many lanes of an order's size fit into one call. Raises InvalidField when it alone does not."""
        ask = order.ask
        fit = self._budget.lanes(ask.width, ask.height, condition)
        if fit < max(len(condition.lanes), self.lanes.canonical(ask.width, ask.height)):
            need = self._budget.need(ask.width, ask.height) / (1 << 20)
            raise InvalidField(
                f"an image of {ask.width}x{ask.height} needs about {need:.0f} MB; ask for less", param="width"
            )
        return fit

    def _tell_step(self, picture: Picture) -> None:
        order = picture.order
        now = time.monotonic()
        if picture.stepped_at:
            gap = now - picture.stepped_at
            picture.step_s = gap if not picture.step_s else 0.7 * picture.step_s + 0.3 * gap
        picture.stepped_at = now
        every = order.ask.preview_every
        preview = None
        if every and picture.at % every == 0 and picture.at < picture.steps:
            preview = self._previewer.show(picture.latents, order.ask.width, order.ask.height)
        eta_s = (picture.steps - picture.at) * picture.step_s
        order.emit(Stepped(picture.index, picture.at, picture.steps, eta_s, preview))

    def _finished(self, order: Order, outcome: Made | MoaError) -> None:
        """Hand out a file, and the end after an order's last; from a worker's thread."""
        if isinstance(outcome, MoaError):
            self._fail(order, outcome)
            return
        with self._changed:
            if not order.live:
                return
            order.emit(outcome)
            order.delivered += 1
            if order.delivered < order.ask.count:
                return
            self._end(order, Done(order.ask.count))
        if self._checkpoints is not None:
            self._checkpoints.forget(order)
