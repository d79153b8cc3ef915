"""Which texts are embedded in the next call: those of the account that is furthest behind, and others about as long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain

from inference import queue
from inference.job import Failed, Job


@dataclass(frozen=True, slots=True)
class Embedded:
    """All texts are embedded."""

    vectors: list[list[float]]


@dataclass(slots=True, eq=False)
class Text:
    """One text of a request."""

    request: Request
    tokens: list[int]
    number: int = 0
    """In order of arrival."""
    vector: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Request(Job[Embedded | Failed]):
    """The texts of one call."""

    texts: list[Text] = field(default_factory=list)
    left: int = 0
    """Texts that have no vector yet."""

    @property
    def read(self) -> int:
        """How many tokens the model has read: those of the texts that have their vectors."""
        return sum(len(text.tokens) for text in self.texts if text.vector)


class Queue(queue.Queue[Request, Text, Text]):
    """The texts of one encoder; a place is a text's for one call.

    Args:
        name: The model's catalogue id.
        batch_tokens: Tokens of one call, padding included.
        max_waiting: Texts of one flow that may wait.
    """

    def __init__(self, name: str, *, batch_tokens: int, max_waiting: int) -> None:
        super().__init__(name, max_waiting)
        self._batch_tokens = batch_tokens
        self._running: list[Text] = []
        self._text_s = 0.01

    @property
    def busy(self) -> bool:
        """Whether any text waits or is in the call."""
        return bool(self.waiting or self._running)

    @property
    def running_count(self) -> int:
        """As `Queue.running_count`: texts of the call."""
        return len(self._running)

    def work_s(self) -> float | None:
        """As `Queue.work_s`."""
        return (self.waiting_count + self.running_count) * self._text_s

    def jobs(self) -> Collection[Request]:
        """Return the requests of which any text waits or is in the call."""
        return {text.request for text in chain(self._running, *self.waiting.values())}

    def add(self, request: Request) -> None:
        """Let a request's texts wait. Raises QueueFull with the time in which half of its flow's will be done."""
        own = len(self.waiting.get(request.flow, ())) + len(request.texts)
        self._let_in(
            request.flow,
            request.texts,
            active=set(self.waiting),
            credit=self._batch_tokens,
            wait_s=lambda: own * self._text_s / 2,
        )

    def withdraw(self, request: Request) -> None:
        """Forget what of a request waits."""
        self._keep(request.flow, lambda text: text.request is not request)

    def drop(self, request: Request) -> None:
        """Forget a request."""
        self.withdraw(request)
        self._running = [text for text in self._running if text.request is not request]

    def admit(self) -> list[Request]:
        """Free the places of the last call; there are as many as a call has tokens, given out by `batch`."""
        self._running = []
        return []

    def batch(self) -> list[Text]:
        """Take what waits longest of the flow that is furthest behind, and texts about as long of all flows."""
        if not self.waiting:
            return []
        head = self.waiting[self._fairest()][0]
        others = [text for text in chain(*self.waiting.values()) if text is not head]
        # Texts of about one length waste no padding; of these the fairest first.
        others.sort(
            key=lambda text: (
                abs(len(text.tokens) - len(head.tokens)),
                self.shares.clock(text.request.flow),
                text.number,
            )
        )
        taken, width = [head], len(head.tokens)
        for text in others:
            wider = max(width, len(text.tokens))
            if wider * (len(taken) + 1) > self._batch_tokens:
                break
            taken.append(text)
            width = wider
        self._begin(taken)
        return taken

    def _begin(self, taken: list[Text]) -> None:
        """Charge the flows of texts, and have them wait no more."""
        gone = frozenset(taken)
        for flow in {text.request.flow for text in taken}:
            self.shares.charge(flow, sum(len(text.tokens) for text in taken if text.request.flow == flow))
            self._keep(flow, lambda text: text not in gone)
        self._running = taken

    def took(self, batch: list[Text], seconds: float) -> None:
        """Learn how long a text takes."""
        self._text_s += 0.1 * (seconds / len(batch) - self._text_s)
