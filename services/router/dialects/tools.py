"""Tools as OpenAI writes them, which the native API writes too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from moa.text.v1 import text_pb2
from services.router.dialects.reply import encode


class FunctionCall(Struct):
    """A call's name and arguments."""

    name: str
    arguments: str


class ToolCall(Struct):
    """A call that the model made earlier."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Function(Struct, forbid_unknown_fields=True, kw_only=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct, forbid_unknown_fields=True):
    """A tool."""

    function: Function
    type: Literal["function"]


def tool_from(tool: FunctionTool) -> text_pb2.Tool:
    """Give a tool as the contract has it."""
    function = tool.function
    return text_pb2.Tool(
        name=function.name,
        description=function.description or "",
        parameters_json=encode(function.parameters).decode() if function.parameters else "",
        strict=function.strict,
    )


def call_from(call: ToolCall) -> text_pb2.ToolCall:
    """Give an earlier call as the contract has it."""
    return text_pb2.ToolCall(id=call.id, name=call.function.name, arguments_json=call.function.arguments)


class Calls:
    """Gathers the pieces of an answer's calls."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, piece: text_pb2.ToolCallDelta) -> None:
        """Take a piece in."""
        call = self._calls.setdefault(
            piece.call_index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] += piece.id
        call["function"]["name"] += piece.name
        call["function"]["arguments"] += piece.arguments_json

    def whole(self) -> list[dict[str, Any]]:
        """Give the calls, in order."""
        return [self._calls[index] for index in sorted(self._calls)]
