"""Requests in the text engine: work and its candidates."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.job import Job
from inference.text.answer import CandidateText
from inference.text.ask import TextAsk
from inference.text.constraint import Constraint
from inference.text.events import Counted, Event
from inference.text.sampling import Sampler


@dataclass(slots=True, eq=False)
class Candidate:
    """One answer being generated."""

    work: Work
    index: int
    answer: CandidateText
    sampler: Sampler
    constraint: Constraint | None = None
    number: int = 0
    """In order of arrival."""
    slot: int = -1
    read: int = 0
    """Tokens of the prompt that are in the cache."""
    kept: int = 0
    """Those of them that were there before, and cost nothing."""
    last: int = -1
    """The newest token, not yet in the cache."""
    paid: float = 0.0
    """Tokens that its flow was charged for it, some of them ahead."""

    @property
    def used(self) -> int:
        """What it cost so far: tokens of its prompt that were read, and tokens decoded."""
        return self.read - self.kept + self.answer.tokens


@dataclass(slots=True, eq=False)
class Work(Job[Event]):
    """One request in the engine."""

    ask: TextAsk
    prompt: list[int]
    inside: bool
    bound: int
    constraint: Constraint | None = None
    candidates: list[Candidate] = field(default_factory=list)
    left: int = 0
    """Candidates that did not end yet."""

    @property
    def begun(self) -> bool:
        """Whether any of the prompt was read: a caller who leaves before that owes nothing (docs/charging.md)."""
        return any(candidate.read for candidate in self.candidates)

    def counted(self) -> Counted:
        """Count the tokens so far."""
        return Counted(
            len(self.prompt),
            sum(c.answer.tokens for c in self.candidates),
            sum(c.answer.reasoning_tokens for c in self.candidates),
            min((c.kept for c in self.candidates), default=0),
        )
