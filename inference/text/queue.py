"""Who waits, who gets the next free slot, and whose prompt is read next.

A slot goes to the flow (an account at one priority, `inference.fair`) that is furthest behind in tokens, and is kept
until its answer ends. So a flow pays when it gets one, for the prompt and for as many tokens as answers usually have,
and what was really read and decoded is settled as it runs. Without paying ahead, whoever is behind would take every
slot that becomes free for the length of an answer: flows would own all slots in turns, instead of some each.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence

from inference import metrics
from inference.fair import Flow, Shares, crowded
from inference.text.work import Candidate, Work
from services.common.errors import QueueFull

CHUNK = 256
"""Tokens of a prompt that are read in one tick, so that running answers go on meanwhile."""


class Queue:
    """The answers of one engine. Called under the engine's lock, but for `took`.

    Args:
        name: The model's catalogue id, for metrics.
        rows: Slots.
        max_waiting: Answers of one flow that may wait.
        chunk: Tokens of a prompt that are read in one tick.
        place: Chooses one of the free slots for an answer, and notes what of its prompt is there already.
    """

    def __init__(
        self,
        name: str,
        *,
        rows: int,
        max_waiting: int,
        chunk: int = CHUNK,
        place: Callable[[Candidate, Sequence[int]], int] = lambda candidate, free: free[0],
    ) -> None:
        self.running: list[Candidate | None] = [None] * rows
        """By slot."""
        self._name = name
        self._max_waiting = max_waiting
        self._chunk = chunk
        self._place = place
        self.waiting: dict[Flow, deque[Candidate]] = {}
        """By flow, the oldest first; a flow of which nothing waits is not in it."""
        self._numbers = itertools.count()
        self.shares = Shares()
        """How far each flow is behind."""
        self._readers = Shares()
        self._usual = 64.0
        self._token_s = 0.01

    @property
    def busy(self) -> bool:
        """Whether any answer waits or runs."""
        return bool(self.waiting) or any(self.running)

    def add(self, work: Work) -> None:
        """Let a work's candidates wait. Raises QueueFull with the time in which half of its flow's will have begun."""
        flow, count = work.flow, len(work.candidates)
        mine = len(self.waiting.get(flow, ()))
        everyone = sum(map(len, self.waiting.values()))
        if crowded(mine + count, everyone + count, self._max_waiting):
            wait_s = self._wait_s(flow, max(mine, count) / 2)
            raise QueueFull(f"the queue of model {self._name} is full", retry_after_s=max(1.0, wait_s))
        self.shares.enter(flow, self.active(), self._expected(work))
        for candidate in work.candidates:
            candidate.number = next(self._numbers)
        self.waiting.setdefault(flow, deque()).extend(work.candidates)

    def drop(self, work: Work) -> None:
        """Forget what of a work waits."""
        kept = deque(c for c in self.waiting.pop(work.flow, ()) if c.work is not work)
        if kept:
            self.waiting[work.flow] = kept

    def admit(self) -> None:
        """Settle what running answers used beyond what was paid ahead, and fill the free slots."""
        for candidate in self.running:
            if candidate is not None and candidate.used > candidate.paid:
                self._pay(candidate, candidate.used)
        free = [slot for slot, holder in enumerate(self.running) if holder is None]
        while free and self.waiting:
            free.remove(self._give(self._next(), free))
        metrics.WAITING.labels(self._name).set(sum(map(len, self.waiting.values())))
        metrics.RUNNING.labels(self._name).set(sum(c is not None for c in self.running))

    def reading(self) -> tuple[Candidate, int] | None:
        """Choose whose prompt is read on, and up to which token; charge it. Flows take turns by what they read."""
        unread = [c for c in self.running if c is not None and c.last < 0]
        if not unread:
            return None
        candidate = min(unread, key=lambda c: (self._readers.clock(c.work.flow), c.number))
        end = min(candidate.read + self._chunk, len(candidate.work.prompt))
        self._readers.charge(candidate.work.flow, end - candidate.read)
        return candidate, end

    def release(self, candidate: Candidate, how: str) -> None:
        """Take a slot back and settle."""
        self.running[candidate.slot] = None
        self._pay(candidate, candidate.used)
        if how == "finished":
            self._usual += 0.1 * (candidate.answer.tokens - self._usual)
        metrics.ENDED.labels(self._name, how).inc()
        metrics.WORK.labels(self._name, candidate.work.flow.priority).inc(candidate.used)

    def clear(self) -> set[Work]:
        """Forget everything; give what was forgotten."""
        lost = {c.work for waiting in self.waiting.values() for c in waiting}
        self.waiting.clear()
        for candidate in self.running:
            if candidate is not None:
                lost.add(candidate.work)
                self.release(candidate, "failed")
        return lost

    def took(self, seconds: float) -> None:
        """Learn how long a tick takes."""
        self._token_s += 0.1 * (seconds - self._token_s)

    def _next(self) -> Candidate:
        """Take the oldest waiting candidate of the flow that is furthest behind."""
        flow = min(self.waiting, key=lambda f: (self.shares.clock(f), self.waiting[f][0].number))
        waiting = self.waiting[flow]
        candidate = waiting.popleft()
        if not waiting:
            del self.waiting[flow]
        return candidate

    def _give(self, candidate: Candidate, free: Sequence[int]) -> int:
        readers = {c.work.flow for c in self.running if c is not None and c.last < 0}
        self._readers.enter(candidate.work.flow, readers, self._chunk)
        slot = candidate.slot = self._place(candidate, free)
        self.running[slot] = candidate
        self._pay(candidate, self._expected(candidate.work) - candidate.kept)
        return slot

    def _pay(self, candidate: Candidate, tokens: float) -> None:
        """Have a candidate's flow charged for so many tokens in all."""
        self.shares.charge(candidate.work.flow, tokens - candidate.paid)
        candidate.paid = tokens

    def _expected(self, work: Work) -> float:
        """Estimate what one of a work's answers will cost."""
        return len(work.prompt) + min(work.bound, self._usual)

    def active(self) -> set[Flow]:
        """Return the flows of which anything waits or runs."""
        return {*self.waiting, *(c.work.flow for c in self.running if c is not None)}

    def _wait_s(self, flow: Flow, answers: float) -> float:
        """Estimate how long a flow's share of the slots takes for so many answers."""
        share = flow.weight / sum(f.weight for f in self.active() | {flow})
        return answers * self._usual * self._token_s / (len(self.running) * share)
