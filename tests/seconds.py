"""Seconds that pass when a test says so: for the deadlines of calls to providers, however busy the machine is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from services.providers.http import deadline


class _Timer:
    def __init__(self, at: float, fire: Any) -> None:
        self.at = at
        self.fire = fire

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.at = math.inf


class Seconds:
    """The clock of the deadlines that are made from here on, and of the modules that set them."""

    def __init__(self, patch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self._now = 0.0
        self._timers: list[_Timer] = []
        own = SimpleNamespace(**vars(asyncio) | {"get_running_loop": lambda: self})
        for module in (deadline, *modules):
            patch.setattr(module, "asyncio", own)

    def time(self) -> float:
        """Return how many have passed, as a loop's clock."""
        return self._now

    def call_at(self, at: float, fire: Callable[[], None]) -> _Timer:
        """Have a deadline look whether it has passed, as a loop does."""
        self._timers.append(_Timer(at, fire))
        return self._timers[-1]

    @property
    def count(self) -> bool:
        """Whether any deadline counts them now: one that rests does not."""
        return any(timer.at < math.inf and timer.fire.__self__.until < math.inf for timer in self._timers)

    def pass_by(self, seconds: float) -> None:
        """Let so many pass."""
        self._now += seconds
        due = [timer for timer in self._timers if timer.at <= self._now]
        self._timers = [timer for timer in self._timers if timer.at > self._now]
        for timer in due:
            timer.fire()

    async def until(self, over: asyncio.Future[Any], each: float) -> None:
        """Let so many pass, and again, until something is over: a wait that began late is bounded from then on."""
        for _ in range(10):
            self.pass_by(each)
            await asyncio.wait({over}, timeout=0.05)
            if over.done():
                return
        raise AssertionError("it goes on, however long it takes")
