"""A raw body as it lies in a request's bytes: a message would hold it a second time, and give it away as a third."""

from __future__ import annotations

from typing import Final

from google.api import httpbody_pb2
from google.protobuf.message import DecodeError

_FIELDS: Final = httpbody_pb2.HttpBody.DESCRIPTOR.fields_by_name
_CONTENT_TYPE: Final = _FIELDS["content_type"].number << 3 | 2
_DATA: Final = _FIELDS["data"].number << 3 | 2
_EXTENSIONS: Final = _FIELDS["extensions"].number << 3 | 2


class RawBody:
    """A large `google.api.HttpBody`, with its data where it was received."""

    __slots__ = ("content_type", "data")

    def __init__(self, request: bytes) -> None:
        """Raise DecodeError where the bytes are none."""
        self.content_type = ""
        self.data = memoryview(b"")
        view, at = memoryview(request), 0
        while at < len(view):
            tag, at = _varint(view, at)
            size, at = _varint(view, at)
            if tag not in (_CONTENT_TYPE, _DATA, _EXTENSIONS) or at + size > len(view):
                raise DecodeError("not a body")
            field, at = view[at : at + size], at + size
            if tag == _DATA:
                self.data = field
            elif tag == _CONTENT_TYPE:
                try:
                    self.content_type = str(field, "utf-8")
                except UnicodeDecodeError:
                    raise DecodeError("not a body") from None

    def ByteSize(self) -> int:  # as a message has it
        """Return its size, about."""
        return len(self.data) + len(self.content_type)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise DecodeError("not a body")
