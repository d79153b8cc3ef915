"""The parts of Messages' answers that are used, as typed records (platform.claude.com/docs/en/api/messages)."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from services.providers.anthropic.errors import Failure

ABSENT = msgspec.Raw(b"")


class Block(Struct, gc=False):
    """A block: whole, or its beginning in a stream. `type` says which of the fields it has."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    """Thinking that only Claude can read."""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class Delta(Struct, gc=False):
    """A piece of a block, by its `type`; or, of `message_delta`, how the message ended."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = ABSENT


class Begun(Struct, gc=False):
    """The message that `message_start` holds: without content yet."""

    id: str | None = None
    usage: msgspec.Raw = ABSENT


class Event(Struct, gc=False):
    """An event of a stream. `type` says which of the fields it has."""

    type: str
    index: int = 0
    delta: Delta | None = None
    content_block: Block | None = None
    message: Begun | None = None
    usage: msgspec.Raw = ABSENT
    error: Failure | None = None


class Details(Struct, gc=False):
    """Why an answer was refused."""

    explanation: str | None = None


class Whole(Struct, gc=False):
    """A whole answer."""

    content: list[Block]
    id: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
