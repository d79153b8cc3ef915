"""A conversation as a chat template takes it: by the template's own words for tools, or by ours where it has none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import jinja2
import jinja2.meta

from inference.text.tools import BEFORE_ARGUMENTS, BEFORE_NAME, CLOSE, OPEN, Tool
from inference.text.turns import Call, Turn

Message = dict[str, Any]

_OFFER: Final = """\
You can call these tools, one a line:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments only:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>
What it returned follows as <tool_response>. Answer without a call when no tool helps."""


def takes_tools(template: str, environment: jinja2.Environment) -> bool:
    """Return whether a chat template offers tools, and has calls written as `inference.text.tools` reads them."""
    try:
        used = jinja2.meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateError:
        return False
    return "tools" in used and OPEN in template


def natively(turns: Sequence[Turn]) -> list[Message]:
    """Return the messages for a template that knows tools."""
    return [_native(turn) for turn in turns]


def _native(turn: Turn) -> Message:
    message: Message = {"role": turn.role, "content": turn.content}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _read(call.arguments)}}
            for call in turn.calls
        ]
    if turn.role == "tool":
        message |= {"name": turn.name, "tool_call_id": turn.call_id}
    return message


def _read(arguments: str) -> object:
    """Return arguments as templates expect them, an object; text that is none as it is."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def in_words(turns: Sequence[Turn], tools: Sequence[Tool]) -> list[Message]:
    """Return the messages for a template without tools: they are offered in the system's turn, calls are the
    assistant's text, and results come in the user's turns, which stay one a side."""
    messages: list[Message] = []
    answers = False
    for turn in turns:
        if turn.role == "tool":
            content = f"<tool_response>\n{turn.content}\n</tool_response>"
            if answers:
                messages[-1]["content"] += f"\n{content}"
            else:
                messages.append({"role": "user", "content": content})
            answers = True
            continue
        content = "\n".join(filter(None, (turn.content, *map(_written, turn.calls))))
        if answers and turn.role == "user":
            messages[-1]["content"] += f"\n{content}"
        else:
            messages.append({"role": turn.role, "content": content})
        answers = False
    return _offered(messages, tools) if tools else messages


def _written(call: Call) -> str:
    return f"{OPEN}{BEFORE_NAME}{call.name}{BEFORE_ARGUMENTS}{call.arguments}{CLOSE}"


def _offered(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    lines = (json.dumps(tool.shown()["function"], ensure_ascii=False) for tool in tools)
    offer = _OFFER.format(tools="\n".join(lines))
    if messages[0]["role"] == "system":
        first = {"role": "system", "content": f"{messages[0]['content']}\n\n{offer}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": offer}, *messages]
