"""What a scripted model says in the course of a conversation, told by the conversation itself, whatever the protocol.

A queue of answers would not do: applications ask on the side (for a title, a summary), ask again, and ask at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.emulators.script import Call, Counts, Script

TEXT: Final = "It is 21 in Seoul, 23 in Busan and 25 in Jeju at noon. 맑음 🌞"
VALUE: Final[Mapping[str, Any]] = {"city": "Seoul", "degrees": 21}


@dataclass(frozen=True)
class Wanted:
    """A tool call of the script."""

    name: str
    arguments: Mapping[str, Any] | str
    """An object, or the free text that a custom tool takes."""


@dataclass(frozen=True)
class Step:
    """A turn of the model that calls tools. `text` stands before the calls."""

    calls: tuple[Wanted, ...]
    text: str = ""


LOOP: Final = (
    Step((Wanted("weather", {"city": "Seoul"}),), "Let me look."),
    Step((Wanted("weather", {"city": "Busan"}), Wanted("weather", {"city": "Jeju"}))),
    Step((Wanted("now", {}),)),
)
"""Three turns with calls: text beside the call, two calls at once, a call without arguments."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What the model does when it is asked.

    Args:
        steps: Its turns with calls, each said once as many turns with calls are in the conversation, where the tools
            are declared.
        text: What it says in the end, or where it is asked without tools.
        value: What it says where JSON or the call of one tool is forced.
        refuse: What the provider refuses every request with, as in `Script`.
        reaches: How many turns with calls must be handed back; all of them by default.
        sees: Whether a picture must be in the request.
        counted: What stands in a request once for each turn with calls, where a client tells turns in words of its own.
        outcome: What the client's program must answer where it is not what the model says in the end.
        marks: What must be found in the results of the tools that are handed back, one each.
    """

    steps: tuple[Step, ...] = ()
    text: str = TEXT
    value: Mapping[str, Any] = field(default_factory=lambda: VALUE)
    refuse: str = ""
    reaches: int | None = None
    sees: bool = False
    counted: str = ""
    outcome: str | None = None
    marks: tuple[str, ...] = ()


def named(steps: Sequence[Step], rename: Callable[[str], str]) -> tuple[Step, ...]:
    """Return steps whose tools have the names that a client gives them."""
    return tuple(replace(s, calls=tuple(replace(c, name=rename(c.name)) for c in s.calls)) for s in steps)


@dataclass(frozen=True)
class Turn:
    """A turn of the model with calls, as it was handed back. `proof` is its signature, None where there is none."""

    calls: Sequence[Wanted]
    proof: str | None = None
    thought: str | None = None


@dataclass(frozen=True)
class Conversation:
    """What a request says, whatever its protocol."""

    turns: Sequence[Turn]
    results: Sequence[str]
    tools: frozenset[str]
    forced: str | None
    """The one tool that must be called."""
    as_json: bool
    said: str
    """Everything, as it was sent."""
    thinks: bool
    pictures: int = 0


class Stage:
    """Where a plot is played: what was said, and what was wrong with how it was handed back."""

    def __init__(self, plot: Plot, *, proves: str, forgets: bool = False) -> None:
        """Play a plot.

        Args:
            plot: What is said.
            proves: Which turns must be handed back with their signature: `always`, `thoughts` (those that were thought
                about, while the model thinks, with the text), `sealed` (likewise, without) or `never`.
            forgets: Whether the client keeps no thoughts, so that a turn with some must go on without thinking.
        """
        self.plot = plot
        self.problems: list[str] = []
        self.asked = 0
        self.reached = 0
        """The most turns with calls that a conversation had."""
        self._proves = proves
        self._forgets = forgets
        self._thought: set[int] = set()

    def prove(self, what: str) -> None:
        """Have turns be handed back with their signatures as `proves` says."""
        self._proves = what

    def answer(self, told: Conversation) -> Script:
        """Return what is said next."""
        self.asked += 1
        if self.plot.refuse:
            return Script(refuse=self.plot.refuse, retry_after_s=1)
        if self.plot.sees and told.pictures != 1:
            self.problems.append(f"the model was shown {told.pictures} pictures")
        played = _played(self.plot, told)
        place = told.said.count(self.plot.counted) if self.plot.counted else len(told.turns)
        if played:
            self._check(told, place)
            self.reached = max(self.reached, place)
        thoughts = (thought(place),) if told.thinks else ()
        counts = Counts(prompt=40, completion=20, reasoning=6 if thoughts else 0)
        if played and place < len(self.plot.steps):
            step = self.plot.steps[place]
            if thoughts:
                self._thought.add(place)
            calls = tuple(
                Call(f"call_{place}_{i}", each.name, _pieces(_words(each.arguments)))
                for i, each in enumerate(step.calls)
            )
            text = (step.text,) if step.text else ()
            return Script(text=text, reasoning=thoughts, calls=calls, mark=mark(place), counts=counts)
        value = json.dumps(self.plot.value, ensure_ascii=False)
        if told.forced is not None:
            call = Call("call_value", told.forced, _pieces(value))
            return Script(text=(), reasoning=thoughts, calls=(call,), counts=counts)
        said = value if told.as_json else self.plot.text
        return Script(text=_pieces(said), reasoning=thoughts, counts=counts)

    def missing(self) -> list[str]:
        """Return what should have happened and did not."""
        expected = len(self.plot.steps) if self.plot.reaches is None else self.plot.reaches
        if self.reached < expected:
            return [f"the model was told of {self.reached} of {expected} turns with calls"]
        return []

    def _check(self, told: Conversation, reached: int) -> None:
        for place, (turn, step) in enumerate(zip(told.turns, self.plot.steps, strict=False)):
            if list(turn.calls) != list(step.calls):
                self.problems.append(f"turn {place}: {step.calls} were handed back as {turn.calls}")
            if self._proves == "always" and turn.proof != mark(place):
                self.problems.append(f"turn {place}: its signature was handed back as {turn.proof!r}")
            if self._proves == "sealed" and place in self._thought and turn.proof != mark(place):
                self.problems.append(f"turn {place}: what it thought was handed back as {turn.proof!r}")
            if self._proves == "thoughts" and place in self._thought:
                if self._forgets:
                    if told.thinks:
                        self.problems.append(f"turn {place}: its thought is kept; the row says that it is not")
                elif not told.thinks:
                    self.problems.append(f"turn {place}: thinking was turned off within the loop")
                elif (turn.proof, turn.thought) != (mark(place), thought(place)):
                    self.problems.append(f"turn {place}: its thought was handed back as {(turn.proof, turn.thought)!r}")
        everything = told.said if self.plot.counted else "\n".join(told.results)
        told_of = sum(len(step.calls) for step in self.plot.steps[:reached])
        for expected in self.plot.marks[:told_of]:
            if expected not in everything:
                self.problems.append(f"no result of a tool says {expected!r}: {everything[:300]!r}")


def mark(place: int) -> str:
    """Return what tells a turn's signature from the others'."""
    return f"-turn-{place}"


def thought(place: int) -> str:
    """Return what the model thinks before a turn."""
    return f"I think about turn {place}."


def _played(plot: Plot, told: Conversation) -> bool:
    names = {call.name for step in plot.steps for call in step.calls}
    return bool(names) and names <= told.tools


def _words(arguments: Mapping[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _pieces(text: str) -> tuple[str, ...]:
    """Cut a text as a stream does, also within words."""
    return tuple(text[start : start + 7] for start in range(0, len(text), 7))
