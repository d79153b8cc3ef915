"""A vision model at work: one image after the other, in a thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from inference import metrics
from inference.vision.families import Family
from services.common import logs
from services.common.errors import Internal, MoaError, QueueFull

_log = logs.get("vision")

T = TypeVar("T")


class VisionEngine:
    """Runs looks at images in the order in which they came.

    Args:
        name: The model's catalogue id.
        family: The loaded model.
        max_waiting: Looks that may wait; more are refused.
    """

    def __init__(self, name: str, family: Family, *, max_waiting: int = 16) -> None:
        self._name = name
        self.family = family
        self._max_waiting = max_waiting
        self._waiting = 0
        self._took_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"vision-{name}")

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return self.family.size_bytes

    def start(self) -> None:
        """Do nothing: the thread starts with the first look."""

    def stop(self) -> None:
        """End the thread once its look is over."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def look(self, work: Callable[[Family], T]) -> T:
        """Run work on the model; one that is cancelled before its turn is not run.

        Raises QueueFull when too many wait; MoaError as the work does; Internal when it fails otherwise.
        """
        if self._waiting > self._max_waiting:
            wait_s = max(0.1, self._waiting * self._took_s)
            raise QueueFull("too many images wait to be looked at", retry_after_s=wait_s)
        self._waiting += 1
        metrics.WAITING.labels(self._name).set(self._waiting)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)
        finally:
            self._waiting -= 1
            metrics.WAITING.labels(self._name).set(self._waiting)

    def _run(self, work: Callable[[Family], T]) -> T:
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                done = work(self.family)
        except MoaError:
            metrics.ENDED.labels(self._name, "refused").inc()
            raise
        except Exception as error:
            metrics.ENDED.labels(self._name, "failed").inc()
            _log.exception("look.failed", model=self._name)
            raise Internal("the image could not be looked at") from error
        self._took_s = time.perf_counter() - began
        metrics.TICK_SECONDS.labels(self._name).observe(self._took_s)
        metrics.ENDED.labels(self._name, "done").inc()
        return done
