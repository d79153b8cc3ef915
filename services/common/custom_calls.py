"""Earlier calls of custom tools, for models that call functions only."""

from __future__ import annotations

from typing import Final

import msgspec

from moa.text.v1.text_pb2 import ToolCall

_encode: Final = msgspec.json.Encoder().encode


def arguments_of(call: ToolCall) -> str:
    """Return a call's arguments as JSON: free text as the one argument `input`."""
    return _encode({"input": call.arguments_json}).decode() if call.custom else call.arguments_json
