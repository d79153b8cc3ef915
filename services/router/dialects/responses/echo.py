"""What an answer says of its request: the fields of a response that are known before anybody answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from services.router.dialects.reply import encode
from services.router.dialects.responses import bodies


class Echo(NamedTuple):
    """What is said."""

    json: bytes
    """The fields, as an object."""
    summary: str
    """In what form reasoning is wanted as a summary; empty: it is shown as it is."""
    spaces: Mapping[str, tuple[str, str]]
    """The namespace and the name of functions that were offered by one name for both."""


def of(body: bodies.ResponseBody, spaces: Mapping[str, tuple[str, str]]) -> Echo:
    """Return what the answer to a body says of it, but for what is stored."""
    reasoning = body.reasoning or bodies.Reasoning()
    summary = summary_of(body)
    fields: dict[str, Any] = {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort, "summary": summary or None},
        "safety_identifier": body.safety_identifier,
        "temperature": _or_usual(body, "temperature"),
        "text": _text(body.text),
        "tool_choice": _choice(body.tool_choice),
        "tools": body.tools or [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": _or_usual(body, "top_p"),
        "truncation": body.truncation or "disabled",
        "user": body.user,
        "metadata": body.metadata or {},
    }
    return Echo(encode(fields), summary, spaces)


def summary_of(body: bodies.ResponseBody) -> str:
    """Return in what form reasoning is wanted as a summary; empty where it is not."""
    wanted = body.reasoning
    if wanted is None:
        return ""
    given = wanted.summary or wanted.generate_summary
    return "" if given in (None, "none") else given


def _or_usual(body: bodies.ResponseBody, name: str) -> float:
    given = getattr(body, name)
    return 1.0 if given is None else given


def _text(text: bodies.TextOptions | None) -> dict[str, Any]:
    form = text.format if text is not None else None
    written = {"type": "text"} if form is None else _set(form)
    verbosity = text.verbosity if text is not None else None
    return {"format": written, "verbosity": verbosity or "medium"}


def _choice(choice: str | bodies.ToolChoice | None) -> str | dict[str, Any]:
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    fields = _set(choice)
    if choice.type != "allowed_tools":
        fields.pop("mode")
    return fields


def _set(given: msgspec.Struct) -> dict[str, Any]:
    fields = {name: getattr(given, name) for name in given.__struct_encode_fields__}
    return {name: value for name, value in fields.items() if value is not None}
