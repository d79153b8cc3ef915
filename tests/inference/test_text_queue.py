"""The text engine's queue under arrivals, ends and leavers in any order; answers are played, one token a tick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.fair import WEIGHTS, Flow
from inference.text.queue import CHUNK, Queue
from inference.text.work import Candidate, Work
from services.common.errors import QueueFull
from tests.laws import tries

ROWS, MOST = 3, 6
FLOWS = [Flow(tenant, priority) for tenant in "ab" for priority in WEIGHTS]
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(FLOWS),
        st.integers(1, 3 * CHUNK),  # tokens of its prompt
        st.integers(1, 30),  # tokens of each answer
        st.integers(1, 3),  # candidates
        st.integers(0, 4),  # ticks until the next arrives
        st.one_of(st.none(), st.integers(0, 40)),  # ticks after which its caller leaves, if so
    ),
    max_size=40,
)


def played(flow: Flow, prompt: int, answer: int, count: int) -> Work:
    """Make work whose answers have so many tokens."""
    work = Work(ask=None, prompt=[0] * prompt, inside=False, bound=answer, flow=flow, left=count)  # type: ignore[arg-type]
    nobody: Any = None
    work.candidates = [Candidate(work, n, SimpleNamespace(tokens=0), nobody) for n in range(count)]  # type: ignore[arg-type]
    return work


class Player:
    """Ticks as the engine does, and keeps the books."""

    def __init__(self) -> None:
        self.queue = Queue("played", rows=ROWS, max_waiting=MOST)
        self.charged: dict[Flow, float] = {}
        charge = self.queue.shares.charge

        def noted(flow: Flow, cost: float) -> None:
            self.charged[flow] = self.charged.get(flow, 0.0) + cost
            charge(flow, cost)

        self.queue.shares.charge = noted  # type: ignore[method-assign]

    def tick(self) -> None:
        """Go one token further."""
        queue = self.queue
        queue.sweep(0.0)
        queue.admit()
        assert all(queue.running) or not queue.waiting, "no slot is free while anybody waits"
        if (reading := queue.reading()) is not None:
            candidate, end = reading
            assert candidate.read < end <= candidate.read + CHUNK
            candidate.read = end
            if end == len(candidate.work.prompt):
                self._token(candidate)
        for other in queue.running:
            if other is not None and other.last >= 0:
                self._token(other)

    def _token(self, candidate: Candidate) -> None:
        candidate.last = 1
        candidate.answer.tokens += 1
        if candidate.answer.tokens >= candidate.work.bound:
            self.queue.release(candidate, finished=True)
            candidate.work.left -= 1

    def leave(self, work: Work) -> None:
        """Have a caller leave."""
        work.cancelled = True
        self.queue.withdraw(work)


@settings(max_examples=tries(75), deadline=None)
@given(ARRIVALS)
def test_everybody_is_served_or_refused_and_pays_what_it_took(arrivals: list[tuple[Any, ...]]) -> None:
    """Whoever was let in and stays gets every answer; what is charged in the end is what was read and decoded."""
    player = Player()
    works: list[Work] = []
    leaving: list[tuple[int, Work]] = []
    now = 0
    for flow, prompt, answer, count, gap, leaves in arrivals:
        work = played(flow, prompt, answer, count)
        try:
            player.queue.add(work)
        except QueueFull:
            continue
        works.append(work)
        if leaves is not None:
            leaving.append((now + leaves, work))
        for _ in range(gap):
            player.tick()
            now += 1
            for due, gone in leaving:
                if due <= now and not gone.cancelled:
                    player.leave(gone)
        by_flow = [len(waiting) for waiting in player.queue.waiting.values()]
        assert all(0 < count <= MOST for count in by_flow)
        assert sum(by_flow) < 2 * MOST
    while player.queue.busy:
        player.tick()
    assert all(work.left == 0 for work in works if not work.cancelled)
    for flow in FLOWS:
        used = sum(c.used for work in works if work.flow == flow for c in work.candidates)
        assert abs(player.charged.get(flow, 0.0) - used) < 1e-6
