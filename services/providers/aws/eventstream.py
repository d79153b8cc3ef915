"""Read AWS event streams (`application/vnd.amazon.eventstream`) from bytes that arrive in any pieces.

Framing by botocore: prelude, headers, payload, each guarded by a CRC.
"""

from __future__ import annotations

from typing import NamedTuple

from services.common.errors import UpstreamBroken


class Frame(NamedTuple):
    """One message of the stream."""

    kind: str
    """`event`, or `exception` for a failure."""
    name: str
    """The event's or the exception's type."""
    payload: bytes
    """Its JSON."""


class FrameParser:
    """Splits a byte stream into frames. One parser reads one stream."""

    def __init__(self) -> None:
        # As in `access`; whoever has a provider at AWS has loaded botocore at its start.
        from botocore.eventstream import EventStreamBuffer, ParserError

        self._buffer = EventStreamBuffer()
        self._damaged = ParserError

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raises UpstreamBroken when a checksum is wrong."""
        self._buffer.add_data(data)
        try:
            return [_frame_from(message.headers, message.payload) for message in self._buffer]
        except self._damaged as error:
            raise UpstreamBroken("the provider's stream is damaged") from error

    def end(self) -> list[Frame]:
        """Return nothing: a frame that is not whole is no frame."""
        return []


def _frame_from(headers: dict[str, object], payload: bytes) -> Frame:
    kind = str(headers.get(":message-type", "event"))
    if kind == "event":
        return Frame(kind, str(headers.get(":event-type", "")), payload)
    return Frame("exception", str(headers.get(":exception-type") or headers.get(":error-code") or ""), payload)
