"""Bodies with large pictures in them, which lie there once: as they are, or written as base64 while they are sent."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from secrets import token_hex
from typing import Final, NamedTuple

LARGE_BYTES: Final = 64 * 1024
"""Data from this size on is worth it."""
_MARK_DIGITS: Final = 6


class Base64(NamedTuple):
    """Data of which a body has the base64."""

    size: int
    """How many bytes the data has."""
    data: Callable[[], bytes]
    """Returns the data, which is not held between."""

    def __len__(self) -> int:
        return 4 * ((self.size + 2) // 3)


class Woven:
    """A body that is bytes and base64 by turns."""

    __slots__ = ("_parts", "_size")

    def __init__(self, parts: Sequence[bytes | Base64]) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces(3 * LARGE_BYTES))

    def pieces(self, most: int) -> Iterator[bytes]:
        """Yield it in order, in pieces of `most` bytes about, each time anew."""
        for part in self._parts:
            step = most // 4 * 3 if isinstance(part, Base64) else most
            data = part.data() if isinstance(part, Base64) else part
            for at in range(0, len(data), step):
                piece = data[at : at + step]
                yield b64encode(piece) if isinstance(part, Base64) else piece


class Weaving:
    """Makes the body of one request: what is to be base64 in it is marked while its JSON is written."""

    def __init__(self) -> None:
        self._key = ""
        self._marked: list[Base64] = []

    def marked(self, size: int, data: Callable[[], bytes]) -> str:
        """Return what stands in the JSON, once, for the base64 of so many bytes."""
        # Nobody can know it, and so nobody's text can hold a mark.
        self._key = self._key or token_hex(16)
        self._marked.append(Base64(size, data))
        return f"{self._key}{len(self._marked) - 1:0{_MARK_DIGITS}}"

    def body(self, encoded: bytes) -> bytes | Woven:
        """Return the body of an encoded JSON."""
        if not self._marked:
            return encoded
        pieces = re.split(rb"%s(\d{%d})" % (self._key.encode(), _MARK_DIGITS), encoded)
        return Woven([self._marked[int(piece)] if at % 2 else piece for at, piece in enumerate(pieces)])
