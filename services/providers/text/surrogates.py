"""Characters whose surrogates (the halves of UTF-16) a provider tells in two pieces, by a JSON escape each."""

from __future__ import annotations

import json
from typing import Any, Final

from services.common.errors import UpstreamBroken

_HIGH: Final = ("\ud800", "\udbff")


class Surrogates:
    """Joins surrogates that come in two pieces. Made for one answer."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], str] = {}

    def whole(self, text: str, place: tuple[int, str]) -> str:
        """Return the text, with the half that waited in front, and without one that it ends with, which waits now.

        `place`: the candidate, and which of its texts. Raises ValueError for a half whose other does not come.
        """
        text = self._waiting.pop(place, "") + text
        if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
            self._waiting[place] = text[-1]
            text = text[:-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16")

    def end(self, candidate: int) -> None:
        """Raise UpstreamBroken where a half of the candidate still waits."""
        if any(owner == candidate for owner, _ in self._waiting):
            raise UpstreamBroken("the provider ended the answer within a character")

    def forget(self, candidate: int) -> None:
        """Drop what waits of a candidate that is cut here."""
        self._waiting = {place: half for place, half in self._waiting.items() if place[0] != candidate}


def value_with_surrogates(payload: bytes) -> Any:
    """Return the value of a piece that may hold halves of characters, which typed decoders refuse.

    Raises ValueError.
    """
    return json.loads(payload, parse_constant=lambda _: None)
