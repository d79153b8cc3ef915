"""Read server-sent events from bytes that arrive in any pieces.

Format: WHATWG HTML, section 9.2.6 "Interpreting an event stream". Of it `data` matters to the providers' protocols, and
whether `event` says `error`; other names, `id`, `retry` and comments are read over.
"""

from __future__ import annotations

from typing import Final

from services.common.errors import UpstreamBroken

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Longest event that is kept while its end is awaited."""


class ErrorData(bytes):
    """The `data` of an event that is called `error`, whatever it holds; empty where it has none."""

    __slots__ = ()


class EventParser:
    """Splits a byte stream into events. One parser reads one stream."""

    __slots__ = ("_cr", "_started", "_tail")

    def __init__(self) -> None:
        self._tail = bytearray()
        """Bytes of the event whose end has not come yet; lines end in LF."""
        self._cr = False
        """Whether the last byte was a CR, which a following LF belongs to."""
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the `data` of each event that `data` completes, in order; multi-line data is joined by LF.

        Raises UpstreamBroken when an event is longer than any that a provider sends.
        """
        if not self._started:
            # A byte order mark may stand before the first event, and may be split itself.
            data = bytes(self._tail) + data
            self._tail.clear()
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._tail += data
                return []
            self._started = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        if self._cr or b"\r" in data:
            data = self._normalised(data)
        tail = self._tail
        if not tail:
            if data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n"):
                return [data[6:-2]]  # the usual case: one event of one line
            # Whole events, several in a read.
            blocks = data.split(b"\n\n")
            tail += blocks.pop()
        else:
            searched = max(0, len(tail) - 1)
            tail += data
            end = tail.rfind(b"\n\n", searched)
            if end < 0:
                if len(tail) > MAX_EVENT_BYTES:
                    raise UpstreamBroken("the provider sent an event that is too long")
                return []
            blocks = bytes(tail[:end]).split(b"\n\n")
            del tail[: end + 2]
        results: list[bytes] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                results.append(block[6:])
            elif (result := _data_of(block)) is not None:
                results.append(result)
        return results

    def end(self) -> list[bytes]:
        """Return the event that the stream ended in without its empty line: some servers leave the last one out."""
        block = bytes(self._tail)
        self._tail.clear()
        result = _data_of(block)
        return [] if result is None else [result]

    def _normalised(self, data: bytes) -> bytes:
        """Turn CR LF and CR into LF. An LF that belongs to a CR seen in an earlier piece is dropped."""
        if self._cr and data.startswith(b"\n"):
            data = data[1:]
            self._cr = False
        if data:
            self._cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data_of(block: bytes) -> bytes | None:
    """Return an event's data; None for an event that has none, unless it is called `error`."""
    lines: list[bytes] = []
    failed = False
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif name == b"event" and value.strip() == b"error":
            failed = True
    if failed:
        return ErrorData(b"\n".join(lines))
    return b"\n".join(lines) if lines else None
