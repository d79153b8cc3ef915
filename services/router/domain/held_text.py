"""Text that is held back on its way to the caller, so that what spans two pieces of it is seen whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from moa.text.v1 import text_pb2

_FIELDS: Final = {"text": "text", "reasoning": "text", "tool_call": "arguments_json"}
"""Where a piece has its words."""
_ASIDE: Final = frozenset(("started", "usage", "error", None))
"""Events that no text waits for."""


class HeldText:
    """The end of each candidate's text, held back until its next piece or its end.

    Args:
        holds: How many characters, at most; 0: none.
    """

    def __init__(self, holds: int) -> None:
        self._holds = holds
        self._tails: dict[int, text_pb2.TextEvent] = {}
        """By candidate. Each holds words."""

    def due_before(self, event: Any, kind: str | None) -> Iterator[Any]:
        """Yield what was held back and has to go before an event, for it is another kind of piece or an end."""
        if not self._tails or kind in _ASIDE:
            return
        if kind == "finished":
            yield from self._tails.values()
            self._tails = {}
        elif (tail := self._tails.get(event.candidate)) is not None and not _goes_on(tail, event, kind):
            yield self._tails.pop(event.candidate)

    def joined(self, event: Any, kind: str | None) -> Any:
        """Return a piece with what was held back before it, which is held back no more."""
        tail = self._tails.pop(event.candidate, None) if self._tails and kind in _FIELDS else None
        if tail is None:
            return event
        assert kind is not None
        mine, other, name = getattr(tail, kind), getattr(event, kind), _FIELDS[kind]
        setattr(mine, name, getattr(mine, name) + getattr(other, name))
        if kind == "text":
            mine.logprobs.extend(other.logprobs)
        if event.HasField("vendor"):
            tail.vendor.MergeFrom(event.vendor)
        return tail

    def split(self, event: Any) -> Any | None:
        """Return what of a piece may go on now; None where all of it is held back."""
        kind = event.WhichOneof("event")
        if not self._holds or kind not in _FIELDS or not isinstance(event, text_pb2.TextEvent):
            return event
        words = getattr(getattr(event, kind), _FIELDS[kind])
        if not words:
            return event
        size = len(words) - self._holds
        if size <= 0:
            self._tails[event.candidate] = event
            return None
        front, tail = text_pb2.TextEvent(), text_pb2.TextEvent(candidate=event.candidate)
        front.CopyFrom(event)
        setattr(getattr(front, kind), _FIELDS[kind], words[:size])
        setattr(getattr(tail, kind), _FIELDS[kind], words[size:])
        if kind == "tool_call":
            tail.tool_call.call_index = event.tool_call.call_index
            tail.tool_call.custom = event.tool_call.custom
        elif kind == "text" and event.text.logprobs:
            count = _covered(event.text, size)
            del front.text.logprobs[count:]
            tail.text.logprobs.extend(event.text.logprobs[count:])
        self._tails[event.candidate] = tail
        return front


def _goes_on(tail: text_pb2.TextEvent, event: text_pb2.TextEvent, kind: str | None) -> bool:
    """Return whether a piece goes on where the held one ends."""
    if kind != tail.WhichOneof("event"):
        return False
    if kind == "tool_call":
        piece = event.tool_call
        return piece.call_index == tail.tool_call.call_index and not (piece.id or piece.name or piece.signature)
    return not (kind == "reasoning" and event.reasoning.signature)


def _covered(delta: text_pb2.TextDelta, size: int) -> int:
    """Return how many of a piece's first tokens lie within so many characters."""
    for count, each in enumerate(delta.logprobs):
        size -= len(each.token)
        if size < 0:
            return count
    return len(delta.logprobs)
