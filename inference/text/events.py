"""What happens to a request for an answer. Free of torch, for the event loop's thread."""

from __future__ import annotations

from dataclasses import dataclass

from inference.job import Failed
from inference.text.answer import Piece
from inference.text.calls import CallPiece


@dataclass(frozen=True, slots=True)
class Shown:
    """A piece of a candidate's answer."""

    candidate: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class Called:
    """A piece of a candidate's call of a tool."""

    candidate: int
    piece: CallPiece


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens so far, of all candidates."""

    prompt: int
    completion: int
    reasoning: int
    cached: int = 0
    """Tokens of the prompt that were not read again, for any candidate."""


@dataclass(frozen=True, slots=True)
class CandidateEnded:
    """A candidate ended: by itself or a stop string, or at the bound."""

    candidate: int
    at_bound: bool
    stop: str = ""
    called: bool = False
    """Whether it called tools."""


@dataclass(frozen=True, slots=True)
class Ended:
    """All candidates ended."""

    counted: Counted


Event = Shown | Called | Counted | CandidateEnded | Ended | Failed
