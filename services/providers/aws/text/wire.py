"""The parts of Converse's answers that are used, as typed records (botocore's `bedrock-runtime` service model)."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class ReasoningText(Struct, gc=False):
    """Reasoning of a whole answer."""

    text: str | None = None
    signature: str | None = None


class Reasoning(Struct, gc=False, rename="camel"):
    """Reasoning: whole (`reasoning_text`) or a piece of it; redacted content is opaque."""

    reasoning_text: ReasoningText | None = None
    text: str | None = None
    signature: str | None = None
    redacted_content: bytes | None = None

    @property
    def is_known(self) -> bool:
        """Whether it holds anything of these."""
        given = self.reasoning_text or self
        return not (given.text is None and given.signature is None and self.redacted_content is None)


class ToolUse(Struct, gc=False, rename="camel"):
    """A whole tool call."""

    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    type: str | None = None
    """Set for a tool that runs at AWS."""


class Cited(Struct, gc=False):
    """A text of the answer that sources stand behind."""

    text: str | None = None


class Citations(Struct, gc=False):
    """Texts of the answer and the sources behind them, which are not read."""

    content: list[Cited]


class Block(Struct, gc=False, rename="camel"):
    """A block of a whole answer."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is one of these."""
        reasons = self.reasoning_content is not None and self.reasoning_content.is_known
        return reasons or not (self.text is None and self.tool_use is None and self.citations_content is None)


class ToolUsePiece(Struct, gc=False):
    """A piece of a tool call's input, as JSON text."""

    input: str = ""


class Piece(Struct, gc=False, rename="camel"):
    """A piece of a block."""

    text: str | None = None
    tool_use: ToolUsePiece | None = None
    reasoning_content: Reasoning | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is one of these."""
        reasons = self.reasoning_content is not None and self.reasoning_content.is_known
        return reasons or not (self.text is None and self.tool_use is None)


class ToolUseBegun(Struct, gc=False, rename="camel"):
    """The head of a tool call."""

    tool_use_id: str = ""
    name: str = ""
    type: str | None = None


class Begun(Struct, gc=False, rename="camel"):
    """The head of a block."""

    tool_use: ToolUseBegun | None = None


class BlockStart(Struct, gc=False, rename="camel"):
    """`contentBlockStart`."""

    content_block_index: int = 0
    start: Begun = msgspec.field(default_factory=Begun)


class BlockDelta(Struct, gc=False, rename="camel"):
    """`contentBlockDelta`."""

    content_block_index: int = 0
    delta: Piece = msgspec.field(default_factory=Piece)


class Stop(Struct, gc=False, rename="camel"):
    """`messageStop`."""

    stop_reason: str | None = None


class Metadata(Struct, gc=False):
    """`metadata`."""

    usage: msgspec.Raw = msgspec.Raw(b"")


class Message(Struct, gc=False):
    """A whole message."""

    content: list[Block]


class Output(Struct, gc=False):
    """What a whole answer holds."""

    message: Message


class Whole(Struct, gc=False, rename="camel"):
    """A whole answer."""

    output: Output
    stop_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"")
