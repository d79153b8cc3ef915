"""Tools that a model of one's own may call, and the grammar that holds its answer to them.

A call is written as Qwen's and Nous Research's models learned it, which most open models know:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Seoul"}}
    </tool_call>

Several calls follow each other. The grammar allows text, or calls of the tools that were named, whose arguments obey
their schemas; text that holds the opening tag is always a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from moa.text.v1 import text_pb2
from services.common.errors import InvalidField, Unsupported
from services.common.foreign import owner_of

OPEN: Final = "<tool_call>"
BEFORE_NAME: Final = '\n{"name": "'
BEFORE_ARGUMENTS: Final = '", "arguments": '
CLOSE: Final = "}\n</tool_call>"

MAX_TOOLS: Final = 128
MAX_CALLS: Final = 8
"""Calls in one turn: a small model that began to call goes on for as long as it may."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NO_ARGUMENTS: Final[dict[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}
_FORM: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Spaces as Python's `json.dumps` writes them, and models that call tools learned them."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments, an object."""
    strict: bool
    """Whether a schema with parts that cannot be enforced is refused; else these parts are only shown to the model."""

    def shown(self) -> dict[str, Any]:
        """Return it as chat templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model may call in this answer."""

    offered: tuple[Tool, ...]
    """At least one; where the caller names one, that one alone."""
    required: bool = False
    """Whether it must call at least one."""
    parallel: bool | None = None
    """Whether it may call several; None: if it was taught tools. One that was not repeats its call (measured on
    SmolLM2 135M)."""


def tools_from(tools: Sequence[text_pb2.Tool], choice: text_pb2.ToolChoice) -> Tools | None:
    """Read a request's tools; None when the model shall call none. Raises InvalidField for a bad tool or choice."""
    mode = choice.mode
    must = mode in (text_pb2.ToolChoice.MODE_REQUIRED, text_pb2.ToolChoice.MODE_NAMED)
    if must and not tools:
        raise InvalidField("tool_choice needs tools", param="tool_choice")
    if len(tools) > MAX_TOOLS:
        raise InvalidField(f"at most {MAX_TOOLS} tools", param="tools")
    offered = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    if len({tool.name for tool in offered}) < len(offered):
        raise InvalidField("two tools have the same name", param="tools")
    if not offered or mode == text_pb2.ToolChoice.MODE_NONE:
        return None
    if mode != text_pb2.ToolChoice.MODE_NAMED:
        return Tools(offered, must, choice.parallel if choice.HasField("parallel") else None)
    named = tuple(tool for tool in offered if tool.name == choice.name)
    if not named:
        raise InvalidField(f"tool_choice names a tool that is not in tools: {choice.name[:64]!r}", param="tool_choice")
    return Tools(named, must, parallel=False)


def _tool(tool: text_pb2.Tool, where: str) -> Tool:
    if not tool.name and tool.HasField("vendor"):
        raise Unsupported(f"models of this gateway have none of the tools that run at {owner_of(tool)}", param=where)
    if tool.HasField("custom"):
        refusal = "models of this gateway call functions only; models of OpenAI's protocol take custom tools"
        raise Unsupported(refusal, param=f"{where}.custom")
    if not _NAME.fullmatch(tool.name):
        raise InvalidField("a tool's name has 1 to 64 letters, digits, _, - and .", param=f"{where}.name")
    return Tool(tool.name, tool.description, _parameters(tool.parameters_json, f"{where}.parameters"), tool.strict)


def _parameters(written: str, where: str) -> dict[str, Any]:
    if not written:
        return _NO_ARGUMENTS
    try:
        schema = json.loads(written)
    except (ValueError, RecursionError):
        raise InvalidField("a tool's parameters must be valid JSON", param=where) from None
    if not isinstance(schema, dict):
        raise InvalidField("a tool's parameters must be a JSON Schema object", param=where)
    if not schema:
        return _NO_ARGUMENTS
    if schema.get("type", "object") != "object":
        raise InvalidField("a tool's parameters must be of type object", param=where)
    return {"type": "object", **schema}


def grammar(tools: Tools, schema: str | None, choices: Sequence[str] = ()) -> str:
    """Return the grammar of an answer, in llguidance's Lark.

    Args:
        tools: What may be called.
        schema: JSON Schema of an answer that calls nothing; None: any text.
        choices: The words, one of which is the answer that calls nothing; empty: any text.
    """
    first, more = f"{_quoted(OPEN)} call", f"{_quoted(chr(10) + OPEN)} call"
    calls = f"more{{0,{MAX_CALLS - 1}}}" if tools.parallel else ""
    lines = ["%llguidance {}"]
    if tools.required:
        lines.append(f"start: {first} {calls}")
    elif choices:
        lines += [f"start: answer | {first} {calls}", f"answer: {any_of(choices)}"]
    elif schema is not None:
        lines += [f"start: answer | {first} {calls}", f"answer: {_json(_answer(schema), strict=True, dense=True)}"]
    else:
        lines += [
            f"start: TEXT | head call {calls}",
            f"head[lazy]: /(?s:.*){OPEN}/",
            f"TEXT: /(?s:.*)/ & ~/(?s:.*){OPEN}(?s:.*)/",
        ]
    if tools.parallel:
        lines.append(f"more: {more}")
    bodies = " | ".join(f"call_{number}" for number in range(len(tools.offered)))
    lines.append(f"call: {_quoted(BEFORE_NAME)} ({bodies}) {_quoted(CLOSE)}")
    for number, tool in enumerate(tools.offered):
        lines.append(f"call_{number}: {_quoted(tool.name + BEFORE_ARGUMENTS)} arguments_{number}")
        lines.append(f"arguments_{number}: {_json(tool.parameters, strict=tool.strict)}")
    return "\n".join(lines) + "\n"


def any_of(choices: Sequence[str]) -> str:
    """Return the body of a rule that is one of several words, in llguidance's Lark."""
    return " | ".join(map(_quoted, choices))


def _answer(schema: str) -> dict[str, Any]:
    try:
        found = json.loads(schema)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidField("the schema must be a JSON object", param="response_format")
    return found


def _json(schema: dict[str, Any], *, strict: bool, dense: bool = False) -> str:
    form = {"whitespace_flexible": False} if dense else _FORM
    return "%json " + json.dumps({**schema, "x-guidance": {**form, "lenient": not strict}})


def _quoted(text: str) -> str:
    return json.dumps(text)
