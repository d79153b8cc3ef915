"""Who waits, who gets the next free slot, and whose prompt is read next.

A slot goes to the flow (an account at one priority, `inference.fair`) that is furthest behind in tokens, and is kept
until its answer ends. So a flow pays when it gets one, for the prompt and for as many tokens as answers usually have,
and what was really read and decoded is settled as it runs. Without paying ahead, whoever is behind would take every
slot that becomes free for the length of an answer: flows would own all slots in turns, instead of some each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from inference import metrics, queue
from inference.fair import Flow, Shares
from inference.text.work import Candidate, Work

CHUNK = 256
"""Tokens of a prompt that are read in one tick, so that running answers go on meanwhile."""


class Queue(queue.Queue[Work, Candidate, Candidate]):
    """The answers of one engine; a place is an answer's slot of the cache, until the answer ends.

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
        super().__init__(name, max_waiting)
        self.running: list[Candidate | None] = [None] * rows
        """By slot."""
        self._chunk = chunk
        self._place = place
        self._readers = Shares()
        self._usual = 64.0
        self._token_s = 0.01

    @property
    def busy(self) -> bool:
        """Whether any answer waits or runs."""
        return bool(self.waiting) or any(self.running)

    @property
    def running_count(self) -> int:
        """As `Queue.running_count`: answers."""
        return sum(candidate is not None for candidate in self.running)

    @property
    def most_rows(self) -> int:
        """As `Queue.most_rows`: slots."""
        return len(self.running)

    def work_s(self) -> float | None:
        """As `Queue.work_s`: of answers of a usual length, those that run half done."""
        return (self.waiting_count + self.running_count / 2) * self._usual * self._token_s / len(self.running)

    def jobs(self) -> Collection[Work]:
        """Return the works of which any answer waits or runs."""
        waiting = (candidate.work for candidates in self.waiting.values() for candidate in candidates)
        return {*waiting, *(candidate.work for candidate in self.running if candidate is not None)}

    def add(self, work: Work) -> None:
        """Let a work's candidates wait. Raises QueueFull with the time in which half of its flow's will have begun."""
        flow, count = work.flow, len(work.candidates)
        half = max(len(self.waiting.get(flow, ())), count) / 2
        self._let_in(
            flow,
            work.candidates,
            active=self.active(),
            credit=self._expected(work),
            wait_s=lambda: self._wait_s(flow, half),
        )

    def withdraw(self, work: Work) -> None:
        """Forget what of a work waits."""
        self._keep(work.flow, lambda candidate: candidate.work is not work)

    def drop(self, work: Work) -> None:
        """Forget a work, and take its slots back."""
        self.withdraw(work)
        for candidate in self.running:
            if candidate is not None and candidate.work is work:
                self.release(candidate)

    def admit(self) -> list[Work]:
        """Settle what running answers used beyond what was paid ahead, and fill the free slots."""
        for candidate in self.running:
            if candidate is not None and candidate.used > candidate.paid:
                self._pay(candidate, candidate.used)
        free = [slot for slot, holder in enumerate(self.running) if holder is None]
        entering: list[Work] = []
        while free and self.waiting:
            candidate = self._take(self._fairest())
            if candidate.index == 0:
                entering.append(candidate.work)
            free.remove(self._give(candidate, free))
        return entering

    def batch(self) -> list[Candidate]:
        """Return the answers that go a token further: all that hold a slot and have been read."""
        return [candidate for candidate in self.running if candidate is not None and candidate.last >= 0]

    def reading(self) -> tuple[Candidate, int] | None:
        """Choose whose prompt is read on, and up to which token; charge it. Flows take turns by what they read."""
        unread = [c for c in self.running if c is not None and c.last < 0]
        if not unread:
            return None
        candidate = min(unread, key=lambda c: (self._readers.clock(c.work.flow), c.number))
        end = min(candidate.read + self._chunk, len(candidate.work.prompt))
        self._readers.charge(candidate.work.flow, end - candidate.read)
        return candidate, end

    def release(self, candidate: Candidate, *, finished: bool = False) -> None:
        """Take a slot back and settle."""
        self.running[candidate.slot] = None
        self._pay(candidate, candidate.used)
        if finished:
            self._usual += 0.1 * (candidate.answer.tokens - self._usual)
        metrics.WORK.labels(self._name, candidate.work.flow.priority).inc(candidate.used)

    def took(self, batch: list[Candidate], seconds: float) -> None:
        """Learn how long a tick takes."""
        self._token_s += 0.1 * (seconds - self._token_s)

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

    def _wait_s(self, flow: Flow, answers: float) -> float:
        """Estimate how long a flow's share of the slots takes for so many answers."""
        share = flow.weight / sum(f.weight for f in self.active() | {flow})
        return answers * self._usual * self._token_s / (len(self.running) * share)
