"""Read pieces that servers of OpenAI's protocol write in their own ways, into the protocol's own form.

What is known to happen: content as a list of parts (those that are no text become `content_parts`), ids and indices as
other types, arguments as an object, a log probability that is null, and halves of a character, told by a JSON escape
each, in two pieces.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.providers.text import embedded_errors
from services.providers.text.surrogates import value_with_surrogates

REFERENCES: Final = frozenset(("reference", "tool_reference"))
"""Parts that point at sources of the text beside them (Mistral)."""
REASONING_NAMES: Final = ("reasoning_text", "thinking", "thought")
"""What a few servers call reasoning that others call `reasoning_content`."""
_NO_LOGPROB: Final = -9999.0
"""As OpenAI tells a token so unlikely that it gives no number."""

_encode: Final = msgspec.json.Encoder().encode

Json = dict[str, Any]


def value_of(payload: bytes) -> Json:
    """Return a piece in the protocol's own form, but for halves of characters. Raises ValueError."""
    value = value_with_surrogates(payload)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    value["usage"] = msgspec.Raw(_encode(value["usage"])) if value.get("usage") is not None else msgspec.Raw(b"")
    if value.get("id") is not None:
        value["id"] = str(value["id"])
    choices = value.get("choices") or []
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            _mend_choice(choice)
    return value


def reasoning_in(details: Any) -> str:
    """Return the text of `reasoning_details` where a server tells its reasoning in no other place (MiniMax)."""
    parts = [part for part in details if isinstance(part, dict)] if isinstance(details, list) else []
    found = [part.get(name) for part in parts for name in ("text", "summary")]
    return "".join(text for text in found if isinstance(text, str))


def _mend_choice(choice: Json) -> None:
    choice["index"] = _number(choice.get("index")) or 0
    finish = choice.get("finish_reason")
    choice["finish_reason"] = finish if isinstance(finish, str) else None
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        _mend_logprobs(logprobs.get("content"))
    for name in ("delta", "message"):
        if isinstance(choice.get(name), dict):
            _mend_said(choice[name])


def _mend_said(delta: Json) -> None:
    content = delta.get("content")
    if isinstance(content, list):
        delta["content"] = "".join(_texts(content, thought=False))
        thought = "".join(_texts(content, thought=True))
        if thought:
            delta["reasoning_content"] = (delta.get("reasoning_content") or "") + thought
        refused = "".join(str(part["refusal"]) for part in content if _kind_of(part) == "refusal" and "refusal" in part)
        if refused:
            delta["refusal"] = (delta.get("refusal") or "") + refused
        others = [part for part in content if _kind_of(part) not in ("text", "thinking", "refusal")]
        if others:
            delta["content_parts"] = others
    calls = delta.get("tool_calls") or []
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, dict):
            continue
        call["index"] = _number(call.get("index"))
        call["id"] = None if call.get("id") is None else str(call["id"])
        function = call.get("function")
        if isinstance(function, dict) and not isinstance(function.get("arguments"), str | None):
            function["arguments"] = _encode(function["arguments"]).decode()


def _texts(parts: list[Any], *, thought: bool) -> list[str]:
    """Return the texts of parts (Mistral): those of the answer, or those of its reasoning. Raises ValueError."""
    found = []
    for part in parts:
        kind = _kind_of(part)
        if kind == "text" and not thought:
            found += [part] if isinstance(part, str) else _texts_in(part.get("text"))
        elif kind == "thinking" and thought:
            found += _texts_in(part.get("thinking"))
    return found


def _texts_in(inner: Any) -> list[str]:
    if isinstance(inner, list):
        if any(_kind_of(part) == "other" and str(part.get("type")) not in REFERENCES for part in inner):
            raise ValueError("a part of another kind")
        return _texts(inner, thought=False)
    if not isinstance(inner, str | None):
        raise ValueError("a text of another type")
    return [inner] if inner else []


def _kind_of(part: Any) -> str:
    """Return what a part is: `text`, `thinking`, `refusal` or `other`. Raises ValueError for what is no part."""
    if isinstance(part, str):
        return "text"
    if not isinstance(part, dict):
        raise ValueError("a part of another type")
    kind = part.get("type") or "text"
    if kind in ("thinking", "refusal"):
        return str(kind)
    if isinstance(part.get("text"), str | list):
        return "text"
    return "text" if kind in ("text", "output_text") and not embedded_errors.may_speak(part) else "other"


def _mend_logprobs(entries: Any) -> None:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            if entry.get("logprob") is None:
                entry["logprob"] = _NO_LOGPROB
            _mend_logprobs(entry.get("top_logprobs"))


def _number(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None
