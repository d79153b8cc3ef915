"""Read a JSON body into a typed model, with errors that name the field."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from services.common.errors import InvalidField, Malformed, TooLarge

T = TypeVar("T")

_MOST_LENIENT = 500_000
"""How many values, and commas in strings, are read by the slow parser: half a second's worth."""

_AT = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_NO_TEXT = "the body holds bytes or escapes that are not Unicode text"
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")


class UnknownField(InvalidField):
    """A field that the model does not have."""


def parse(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the typed body. Raises Malformed for what is not JSON, InvalidField for what does not fit the model.

    Raw control characters inside strings are taken: the documented shell sample makes them (GNU base64 wraps its
    lines). So is NaN, which then fails its field's range by name.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise Malformed(_NO_TEXT) from None
    except msgspec.DecodeError as error:
        value = leniently(data, str(error))
    try:
        return msgspec.convert(value, decoder.type)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from None


def leniently(data: bytes, why: str = "") -> Any:
    """Return a body's JSON, with raw control characters and NaN where they are. Raises Malformed, TooLarge."""
    if not data.strip():
        raise Malformed("the body is empty; a JSON object is expected")
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_LENIENT:
        raise TooLarge(f"a body with raw control characters may hold at most {_MOST_LENIENT} values")
    try:
        value = json.loads(data.decode("utf-8-sig"), strict=False)
        # Escapes can write half of a surrogate pair, which no message can hold.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise Malformed(_NO_TEXT) from None
    except (ValueError, RecursionError):
        raise Malformed(f"the body is not valid JSON ({why})" if why else "the body is not valid JSON") from None
    return value


def field_error(text: str) -> InvalidField:
    """Turn msgspec's sentence into an error with the field's path in the caller's spelling."""
    match = _AT.match(text)
    what, path = (match["what"], (match["path"] or "").lstrip(".")) if match else (text, "")
    for pattern, sentence in ((_UNKNOWN, "unknown field {}"), (_MISSING, "{} is required")):
        named = pattern.match(what)
        if named:
            path = f"{path}.{named['name']}" if path else named["name"]
            kind = UnknownField if pattern is _UNKNOWN else InvalidField
            return kind(sentence.format(path), param=path)
    sentence = ("a key: " if match and match["key"] else "") + what[:1].lower() + what[1:].replace("`", "")
    return InvalidField(f"{path}: {sentence}" if path else sentence, param=path)
