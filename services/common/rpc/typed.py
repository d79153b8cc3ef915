"""Read a typed request whole: its message, its REST path and body, and what in it is not known.

Apart from what receives it, for the helper process, which has no gRPC.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message

from services.common.errors import Malformed
from services.common.rpc import known, rest


def read(data: bytes, kind: type[Message], method: str, original: str | None, *, public: bool) -> Message:
    """Return the request of a method (`/package.Service/Method`).

    Args:
        original: The path and query that a REST caller asked for; none: it came typed.
        public: Whether nothing in it is believed.

    Raises Malformed, InvalidField, TooLarge.
    """
    complete = rest.reader(method)
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise Malformed("the request's message cannot be read") from None
    if original is not None and complete is not None:
        complete(message, original)
    if public:
        known.refuse_unknown(message)
    return message
