"""Names and ids in the letters that Converse and Messages take (ToolSpecification, ToolUseBlock; `tool_use`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from moa.text.v1.text_pb2 import Message
from moa.text.v1.text_service_pb2 import GenerateTextRequest

_TAKEN: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OTHERS: Final = re.compile(r"[^a-zA-Z0-9_-]")
_KEPT: Final = 47
"""Letters of a rewritten name that stay: `_` and a digest follow, 64 in all."""


def call_id(given: str) -> str:
    """Return a call's id; another one, always the same, for what other vendors' models write and is refused."""
    return given if _TAKEN.fullmatch(given) else f"call_{sha256(given.encode()).hexdigest()[:32]}"


def tool_name(given: str) -> str:
    """Return a tool's name; for one that is refused another, always the same, that a model can still read."""
    if _TAKEN.fullmatch(given):
        return given
    return f"{_OTHERS.sub('_', given[:_KEPT])}_{sha256(given.encode()).hexdigest()[:16]}"


def called(messages: Sequence[Message]) -> list[str]:
    """Return the names of the tools that were called, each once."""
    return list(
        dict.fromkeys(
            part.tool_call.name for message in messages for part in message.parts if part.HasField("tool_call")
        )
    )


def rewritten(request: GenerateTextRequest) -> Mapping[str, str]:
    """Return the callers' names of the tools that the provider knows by others."""
    names = (*(tool.name for tool in request.tools), *called(request.messages))
    return {sent: name for name in names if (sent := tool_name(name)) != name}
