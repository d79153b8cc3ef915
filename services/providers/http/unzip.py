"""Unpack gzip a bounded piece at a time, so that a small answer that unpacks to a large one takes no memory.

Format: RFC 1952; several members may follow each other, with zeros between them.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

PIECE_BYTES: Final = 256 * 1024
"""Most that is unpacked at once."""
_SLICE_BYTES: Final = 16 * 1024
"""Most that is read at once: what follows a member is copied at its end, and an answer may be many small ones."""


class NotGzip(Exception):
    """What came is no gzip."""


class Unzip:
    """Unpacks one answer. `put` takes what came, once there is nothing `pending`."""

    __slots__ = ("_at", "_full", "_member", "_packed")

    def __init__(self) -> None:
        self._packed = b""
        self._at = 0
        self._member: Any = None
        self._full = False
        """Whether the member may have more to give without another byte."""

    def put(self, packed: bytes) -> None:
        """Take the next bytes of the answer."""
        self._packed, self._at = packed, 0

    @property
    def pending(self) -> bool:
        """Whether `some` may give more of what was put."""
        return self._full or self._at < len(self._packed)

    @property
    def amid(self) -> bool:
        """Whether a member has begun and not ended."""
        return self._member is not None

    def some(self) -> bytes:
        """Unpack a piece; it may be empty. Raises NotGzip."""
        if self._member is None and not self._begin():
            return b""
        if self._full:
            data = self._member.unconsumed_tail
        else:
            data = self._packed[self._at : self._at + _SLICE_BYTES]
            self._at += len(data)
        try:
            result: bytes = self._member.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise NotGzip from error
        self._full = len(result) == PIECE_BYTES or bool(self._member.unconsumed_tail)
        if self._member.eof:
            self._at -= len(self._member.unused_data)
            self._member, self._full = None, False
        return result

    def _begin(self) -> bool:
        """Begin a member at its first byte; tell whether there is one."""
        ahead = self._packed[self._at : self._at + _SLICE_BYTES]
        self._at += len(ahead) - len(ahead.lstrip(b"\0"))
        if not ahead.strip(b"\0"):
            return False
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return True
