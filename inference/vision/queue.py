"""Looks at images, one at a time: the fairest account's next, by the seconds that looks take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference import queue
from inference.job import Failed, Job

if TYPE_CHECKING:
    from inference.vision.families import Family


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look came to."""

    found: Any


@dataclass(slots=True, eq=False)
class Look(Job[Seen | Failed]):
    """One question about one image."""

    work: Callable[[Family], Any]
    number: int = 0
    """In order of arrival."""


class Queue(queue.Queue[Look, Look, Look]):
    """The looks of one engine; its one place is that of the look that is being taken.

    Args:
        name: The model's catalogue id.
        max_waiting: Looks of one flow that may wait.
    """

    def __init__(self, name: str, *, max_waiting: int) -> None:
        super().__init__(name, max_waiting)
        self._running: list[Look] = []
        self._took_s = 0.0

    @property
    def busy(self) -> bool:
        """Whether any look waits or is being taken."""
        return bool(self.waiting or self._running)

    @property
    def running_count(self) -> int:
        """As `Queue.running_count`: the look that is being taken."""
        return len(self._running)

    @property
    def most_rows(self) -> int:
        """As `Queue.most_rows`: one look."""
        return 1

    def work_s(self) -> float | None:
        """As `Queue.work_s`; None before the first look."""
        return len(self.jobs()) * self._took_s if self._took_s else None

    def jobs(self) -> Collection[Look]:
        """Return the looks that wait, and the one that is being taken."""
        return [*self._running, *itertools.chain.from_iterable(self.waiting.values())]

    def add(self, look: Look) -> None:
        """Let a look wait. Raises QueueFull with the time in which those before it will be done."""
        before = len(self.jobs())
        self._let_in(
            look.flow,
            [look],
            active=self.active(),
            credit=self._took_s,
            wait_s=lambda: before * self._took_s,
        )

    def withdraw(self, look: Look) -> None:
        """Forget a look if it waits."""
        self._keep(look.flow, lambda other: other is not look)

    def drop(self, look: Look) -> None:
        """Forget a look."""
        self.withdraw(look)
        if look in self._running:
            self._running.remove(look)

    def admit(self) -> list[Look]:
        """Let the next look in."""
        if self.waiting and not self._running:
            self._running.append(self._take(self._fairest()))
        return list(self._running)

    def batch(self) -> list[Look]:
        """Return the look that has the place."""
        return list(self._running)

    def took(self, batch: list[Look], seconds: float) -> None:
        """Charge a look, and learn how long one takes."""
        self._took_s = seconds
        self.shares.charge(batch[0].flow, seconds)
