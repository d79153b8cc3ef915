"""Payloads among an answer's pieces that are none: errors in shapes that no protocol has, and words that none knows.

Servers put what went wrong into a stream, or into a body of status 200, as the program in front of the model writes it:
`{"object": "error", …}` (vLLM), `{"detail": …}` (FastAPI), `{"code": …, "message": …}` (DashScope, gateways),
`{"error": "…"}` (llama.cpp, Ollama), `{"errors": […]}`, `{"base_resp": {…}}` (MiniMax).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

_WORDS: Final = ("detail", "message", "msg", "error_message", "error_msg", "status_msg", "reason", "title")
"""What servers call the sentence of an error."""
_CODES: Final = ("code", "error_code", "status_code", "status", "type", "error_type")
_GOOD: Final = frozenset(("", "0", "200", "ok", "success", "succeeded", "false"))
"""Codes that say that all is well."""
_QUIET: Final = frozenset(("id", "object", "created", "created_at", "model", "type", "event", "usage", "request_id"))
"""What says nothing, whatever it holds."""

_decode: Final = msgspec.json.Decoder().decode


class EmbeddedError(NamedTuple):
    """An error that came where a piece of the answer was expected."""

    codes: tuple[str, ...] = ()
    """Its typed codes, the best one first."""
    words: str = ""
    """What the server says."""
    param: str = ""


def error_in(payload: Mapping[str, Any]) -> EmbeddedError | None:
    """Return the error that an object without a piece of an answer stands for; None where it tells of none."""
    for name in ("error", "errors", "detail"):
        given = payload.get(name)
        if isinstance(given, list) and given:
            given = given[0]
        if isinstance(given, dict) and given:
            return error_in(given) if isinstance(given.get("error"), dict) else _embedded(given, payload)
        if given:
            return _embedded(payload, {"message": given if isinstance(given, str) else ""})
    if "error" in (payload.get("object"), payload.get("type")):
        return _embedded(payload)
    base = payload.get("base_resp")
    if isinstance(base, dict) and _codes_in(base):
        return _embedded(base)
    if _words_in(payload) and (_codes_in(payload) or not any(name in payload for name in _CODES)):
        return _embedded(payload)
    return None


def error_of(data: bytes) -> EmbeddedError:
    """Return the error that an event stands for that is called one."""
    try:
        value = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return EmbeddedError(words=data.decode(errors="replace"))
    if isinstance(value, dict):
        return error_in(value) or _embedded(value)
    return EmbeddedError(words=value if isinstance(value, str) else "")


def may_speak(payload: Mapping[str, Any]) -> bool:
    """Return whether an object that nobody knows holds text, which may be a word of the answer."""
    return any(name not in _QUIET and _holds_text(value) for name, value in payload.items())


def _holds_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_text, value.values()))
    if isinstance(value, list):
        return any(map(_holds_text, value))
    return isinstance(value, str) and bool(value)


def _embedded(*places: Mapping[str, Any]) -> EmbeddedError:
    codes = [code for place in places for code in _codes_in(place)]
    words = next((words for words in map(_words_in, places) if words), "")
    param = next((place["param"] for place in places if isinstance(place.get("param"), str)), "")
    return EmbeddedError(tuple(dict.fromkeys(codes)), words, param)


def _codes_in(place: Mapping[str, Any]) -> list[str]:
    given = [str(place[name]) for name in _CODES if isinstance(place.get(name), str | int)]
    return [code for code in given if code.lower() not in _GOOD]


def _words_in(place: Mapping[str, Any]) -> str:
    return next((place[name] for name in _WORDS if isinstance(place.get(name), str) and place[name]), "")
