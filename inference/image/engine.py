"""The image engine: one thread, one loop, one denoiser call a tick for many requests.

`schedule` lets orders in and chooses whose pictures go on, `run` puts all of them through the denoiser in one call,
`finish` takes each picture's own scheduler step and decodes those that are done, one at a time. Orders join and leave
between ticks, each with its own prompt, steps, guidance, sampler, seed, source image and mask.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

import torch
from torch import Tensor

from inference import metrics
from inference.fair import NAMELESS, Flow
from inference.image import codec, start
from inference.image.ask import ImageAsk
from inference.image.checkpoints import Checkpoints
from inference.image.deliver import Delivery, facts
from inference.image.denoise import Denoiser
from inference.image.events import Done, Event, Failed, Made, Stepped
from inference.image.families import Condition, Family
from inference.image.families.base import plain
from inference.image.loras import Adapters
from inference.image.memory import Budget
from inference.image.order import Order, Picture
from inference.image.previews import Previewer
from inference.image.queue import Queue
from services.common import logs
from services.common.errors import DeadlineExceeded, Internal, InvalidField, MoaError, Unavailable

_log = logs.get("image")

VERSION = "3"


class ImageEngine:
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
        checkpoints: Where unfinished pictures are kept; None: nowhere.
    """

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
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.name = name
        self.family = family
        self.adapters = adapters
        self.revision = revision
        self.size_bytes = size_bytes
        self.ticks = 0
        self.beats = 0
        """Orders that were begun, calls, and steps with their decoding: what shows that the engine works."""
        self.denoiser = Denoiser(name, family, adapters, most_lanes=most_lanes, fixed_lanes=fixed_lanes)
        self.lanes = self.denoiser.lanes
        engine = f"moa-{VERSION} torch-{torch.__version__} {family.device} {family.dtype}".replace("torch.", "")
        self._delivery = Delivery(
            name,
            family,
            workers,
            receipt=functools.partial(facts, revision=revision, lanes=self.lanes.canonical, engine=engine),
            finish=self._finished,
        )
        self._budget = Budget(family, memory_bytes)
        self._checkpoints = checkpoints
        self._previewer = Previewer(family)
        self._queue = Queue(name, most_lanes=most_lanes, max_waiting=max_waiting)
        self._changed = threading.Condition()
        self._stopping = False
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"image-{name}", daemon=True)

    @property
    def decodes(self) -> int:
        """How many pictures were decoded."""
        return self._delivery.decodes

    def warm(self, width: int, height: int) -> None:
        """Run every number of lanes at a size, until it is compiled and proven; call it before `start`."""
        self.denoiser.warm(width, height)

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop; what still runs fails as unavailable."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def prepare(
        self, ask: ImageAsk, *, flow: Flow = NAMELESS, key: str = "", sources: codec.Sources | None = None
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

    def submit(self, order: Order, emit: Callable[[Event], None]) -> None:
        """Queue an order; its events go to `emit`, from the engine's threads. Raises QueueFull."""
        order.emit = emit
        order.undelivered = order.ask.count
        with self._changed:
            if self._stopping:
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1)
            self._queue.add(order)
            self._idle.clear()
            self._changed.notify()

    def cancel(self, order: Order) -> None:
        """End an order within one step, without decoding it; nothing more is emitted. No effect once it is over."""
        with self._changed:
            order.cancelled = True
            self._changed.notify()

    @property
    def queue(self) -> Queue:
        """What waits and runs, to be looked at; it changes from one tick to the next."""
        return self._queue

    @property
    def busy(self) -> bool:
        """Return whether anything runs or waits."""
        return self._queue.busy

    def orders(self) -> list[Order]:
        """Return the orders that run or wait."""
        return self._queue.everyone()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs or waits; tell whether that came true in time."""
        return self._idle.wait(timeout_s)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._queue.busy:
                    self._idle.set()
                    self._changed.wait()
                self._idle.clear()
                if self._stopping:
                    break
            try:
                self.tick()
            except Exception:
                _log.exception("image.tick_failed", model=self.name)
                self._fail_all(Internal("the engine failed"))
        self._fail_all(Unavailable("the model was unloaded; try again", retry_after_s=1))

    def tick(self) -> None:
        """Take one step with one bucket of pictures."""
        with torch.inference_mode():
            batch = self._schedule()
            if batch:
                self._finish(batch, self._run(batch))

    def _schedule(self) -> list[Picture]:
        """Drop what left or is late, let orders in, and choose whose pictures go on."""
        with self._changed:
            late = self._queue.sweep(time.monotonic())
            entering = self._queue.admit()
        for order in late:
            self._fail(order, DeadlineExceeded("the deadline passed before the image was done"))
        for order in entering:
            self._begin(order)
            self.beats += 1
        with self._changed:
            return self._queue.batch()

    def _run(self, batch: list[Picture]) -> list[Tensor | None]:
        """Put the batch through the denoiser in one call; give each picture's lanes, None for one that was lost."""
        started = time.perf_counter()
        predicted = self.denoiser.predict(batch, lambda picture, error: self._fail(picture.order, error))
        took = time.perf_counter() - started
        self.ticks += 1
        self.beats += 1
        self._queue.took(batch, took)
        metrics.TICKS.labels(self.name).inc()
        metrics.ROWS.labels(self.name).inc(sum(picture.lanes for picture in batch))
        metrics.TICK_SECONDS.labels(self.name).observe(took)
        return predicted

    def _finish(self, batch: list[Picture], predicted: list[Tensor | None]) -> None:
        """Take each picture's own step; hand out progress, previews and finished images."""
        for picture, mine in zip(batch, predicted, strict=True):
            if mine is None or picture.order.cancelled or picture.order.over:
                continue
            self.beats += 1
            try:
                self._step(picture, mine)
            except MoaError as error:
                self._fail(picture.order, error)
            except Exception:
                _log.exception("image.step_failed", model=self.name)
                self._fail(picture.order, Internal("the model failed while it made this image"))

    def _step(self, picture: Picture, predicted: Tensor) -> None:
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
            self._queue.leave(picture)
            self._delivery.deliver(picture)

    def _begin(self, order: Order) -> None:
        try:
            if self._checkpoints is not None:
                self._checkpoints.begin(order)
            with self.adapters.applied({name: torch.full((1, 1), scale) for name, scale in order.ask.loras}):
                order.pictures = start.pictures(self.family, order, self._fitted)
            if self._checkpoints is not None:
                self._resume(order)
        except MoaError as error:
            self._fail(order, error)
        except Exception:
            _log.exception("image.begin_failed", model=self.name)
            self._fail(order, Internal("the model could not begin this image"))

    def _resume(self, order: Order) -> None:
        """Put an order's pictures where another worker left them."""
        assert self._checkpoints is not None
        for picture in order.pictures:
            if self._checkpoints.restore(picture) and picture.at == picture.steps:
                self._queue.leave(picture)
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
            if order.cancelled or order.over:
                return
            order.emit(outcome)
            order.undelivered -= 1
            if not order.undelivered:
                order.over = True
                order.emit(Done(order.ask.count))
                metrics.ENDED.labels(self.name, "finished").inc()
                if self._checkpoints is not None:
                    self._checkpoints.forget(order)

    def _fail(self, order: Order, error: MoaError) -> None:
        with self._changed:
            self._queue.drop(order)
            if order.over:
                return
            order.over = True
        metrics.ENDED.labels(self.name, "failed").inc()
        if not order.cancelled:
            order.emit(Failed(error))

    def _fail_all(self, error: MoaError) -> None:
        for order in self._queue.everyone():
            self._fail(order, error)
