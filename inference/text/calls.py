"""Part an answer's text from the calls of tools in it, as they are written."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from inference.text.tools import BEFORE_ARGUMENTS, BEFORE_NAME, OPEN


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a call."""

    index: int
    """Which call of the answer, from 0."""
    id: str = ""
    """On the first piece only."""
    name: str = ""
    """Likewise."""
    arguments: str = ""
    """The next piece of the arguments' JSON text."""


class _State(Enum):
    TEXT = auto()
    NAME = auto()
    ARGUMENTS = auto()
    AFTER = auto()


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class CallSplitter:
    """Reads what the grammar of `inference.text.tools` allows.

    Args:
        new_id: Makes a call's id.
    """

    def __init__(self, new_id: Callable[[], str] = _new_id) -> None:
        self._new_id = new_id
        self._state = _State.TEXT
        self._held = ""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.calls = 0
        """Calls that were begun."""

    def feed(self, text: str, *, last: bool = False) -> list[str | CallPiece]:
        """Take text; return runs of the answer's text and pieces of calls. `last` returns what was held back."""
        self._held += text
        out: list[str | CallPiece] = []
        while self._step(out, last):
            pass
        return out

    def _step(self, out: list[str | CallPiece], last: bool) -> bool:
        """Read as far as the state goes; return whether it changed."""
        if self._state is _State.TEXT:
            return self._text(out, last)
        if self._state is _State.NAME:
            return self._name(out)
        if self._state is _State.ARGUMENTS:
            return self._arguments(out)
        at = self._held.find(OPEN)
        if at < 0:
            return False
        self._held, self._state = self._held[at + len(OPEN) :], _State.NAME
        return True

    def _text(self, out: list[str | CallPiece], last: bool) -> bool:
        at = self._held.find(OPEN)
        if at >= 0:
            shown, self._held, self._state = self._held[:at], self._held[at + len(OPEN) :], _State.NAME
        else:
            keep = 0 if last else _overlap(self._held)
            shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if shown:
            out.append(shown)
        return at >= 0

    def _name(self, out: list[str | CallPiece]) -> bool:
        at = self._held.find(BEFORE_ARGUMENTS)
        if at < 0:
            return False
        out.append(CallPiece(self.calls, self._new_id(), self._held[len(BEFORE_NAME) : at]))
        self._held, self._state = self._held[at + len(BEFORE_ARGUMENTS) :], _State.ARGUMENTS
        self.calls += 1
        return True

    def _arguments(self, out: list[str | CallPiece]) -> bool:
        """Read up to the bracket that closes the object."""
        for at, character in enumerate(self._held):
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    out.append(CallPiece(self.calls - 1, arguments=self._held[: at + 1]))
                    self._held, self._state = self._held[at + 1 :], _State.AFTER
                    return True
        if self._held:
            out.append(CallPiece(self.calls - 1, arguments=self._held))
            self._held = ""
        return False


def _overlap(text: str) -> int:
    """Return the length of the longest end of `text` that begins the opening tag."""
    return next((size for size in range(min(len(text), len(OPEN) - 1), 0, -1) if OPEN.startswith(text[-size:])), 0)
