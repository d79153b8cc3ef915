"""What waits for an engine and what runs in it: the part that is the same for every kind of engine.

A queue decides who is let in, who gets the next free place, and whose work is in the next tick; each kind of engine
has its own, for a place is a picture's latents in one, a slot of a cache in another.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence, Set
from typing import Any, Generic, Protocol, TypeVar

from inference.fair import Flow, Shares, crowded
from inference.job import Job
from services.common.errors import QueueFull


class Numbered(Protocol):
    """What waits: a job, or a part of one that gets a place of its own."""

    number: int
    """In order of arrival."""


J = TypeVar("J", bound=Job[Any])
W = TypeVar("W", bound=Numbered)
R = TypeVar("R")


class Queue(ABC, Generic[J, W, R]):
    """The jobs of one engine. Called under the engine's lock, but for `took`.

    Type parameters: jobs, what of them waits for a place, and the rows of a tick.

    Args:
        name: The model's catalogue id.
        max_waiting: How much of one flow's may wait.
    """

    def __init__(self, name: str, max_waiting: int) -> None:
        self._name = name
        self._max_waiting = max_waiting
        self.waiting: dict[Flow, deque[W]] = {}
        """By flow, the oldest first; a flow of which nothing waits is not in it."""
        self.shares = Shares()
        """How far each flow is behind."""
        self._numbers = itertools.count()

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether anything waits or runs."""

    @abstractmethod
    def jobs(self) -> Collection[J]:
        """Return the jobs that wait or run."""

    @abstractmethod
    def add(self, job: J) -> None:
        """Let a job wait. Raises QueueFull with the time in which it is worth to try again."""

    @abstractmethod
    def withdraw(self, job: J) -> None:
        """Forget what of a job waits."""

    @abstractmethod
    def drop(self, job: J) -> None:
        """Forget a job, whether it waits or runs."""

    @abstractmethod
    def admit(self) -> list[J]:
        """Move what waits to free places; return the jobs that have their first."""

    @abstractmethod
    def batch(self) -> list[R]:
        """Choose what goes on in the next tick, and charge its flows."""

    @abstractmethod
    def took(self, batch: list[R], seconds: float) -> None:
        """Learn from a tick how long work takes."""

    @property
    @abstractmethod
    def running_count(self) -> int:
        """How much has a place."""

    @property
    def waiting_count(self) -> int:
        """How much waits for one."""
        return sum(map(len, self.waiting.values()))

    @property
    def most_rows(self) -> int:
        """How many rows a tick can carry; 0: it goes by something else."""
        return 0

    def work_s(self) -> float | None:
        """Estimate how long what waits and runs takes; None where nobody can tell."""
        return None

    def sweep(self, now: float) -> list[J]:
        """Forget jobs that were cancelled, are over, or are late; return those that are late."""
        gone = [job for job in self.jobs() if not job.live or job.deadline <= now]
        for job in gone:
            self.drop(job)
        return [job for job in gone if job.live]

    def active(self) -> set[Flow]:
        """Return the flows of which anything waits or runs."""
        return {job.flow for job in self.jobs()}

    def _let_in(
        self, flow: Flow, items: Sequence[W], *, active: Set[Flow], credit: float, wait_s: Callable[[], float]
    ) -> None:
        """Let a flow's items wait, in their order. Raises QueueFull when too many of its own, or of all, do.

        `credit` is how far a flow that is not among the `active` ones may come back behind them.
        """
        mine = len(self.waiting.get(flow, ())) + len(items)
        everyone = sum(map(len, self.waiting.values())) + len(items)
        if crowded(mine, everyone, self._max_waiting):
            raise QueueFull(f"the queue of model {self._name} is full", retry_after_s=max(1.0, wait_s()))
        self.shares.enter(flow, active, credit)
        for item in items:
            item.number = next(self._numbers)
        self.waiting.setdefault(flow, deque()).extend(items)

    def _keep(self, flow: Flow, wanted: Callable[[W], bool]) -> None:
        """Forget what of a flow's waits and is not wanted."""
        kept = deque(filter(wanted, self.waiting.pop(flow, ())))
        if kept:
            self.waiting[flow] = kept

    def _fairest(self) -> Flow:
        """Return the flow that is furthest behind, of several the one whose oldest came first."""
        return min(self.waiting, key=lambda flow: (self.shares.clock(flow), self.waiting[flow][0].number))

    def _take(self, flow: Flow) -> W:
        """Take the oldest of what waits of a flow."""
        waiting = self.waiting[flow]
        item = waiting.popleft()
        if not waiting:
            del self.waiting[flow]
        return item
