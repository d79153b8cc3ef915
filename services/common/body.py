"""Read a JSON body into a typed model, with errors that name the field."""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

from services.common.errors import InvalidField, Malformed

T = TypeVar("T")

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<key>key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")


def parse(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Give the typed body. Raises Malformed for what is not JSON, InvalidField for what does not fit the model.

    Raw control characters inside strings are taken: the documented shell sample makes them (GNU base64 wraps its
    lines). So is NaN, which then fails its field's range by name.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        return _leniently(data, decoder.type, str(error))


def _leniently(data: bytes, kind: type[T], why: str) -> T:
    if not data.strip():
        raise Malformed("the body is empty; a JSON object is expected")
    try:
        value = json.loads(data, strict=False)
    except (ValueError, RecursionError):
        raise Malformed(f"the body is not valid JSON ({why})") from None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from None


def field_error(text: str) -> InvalidField:
    """Turn msgspec's sentence into an error with the field's path in the caller's spelling."""
    found = _AT.match(text)
    what, path = (found["what"], (found["path"] or "").lstrip(".")) if found else (text, "")
    for pattern, sentence in ((_UNKNOWN, "unknown field {}"), (_MISSING, "{} is required")):
        named = pattern.match(what)
        if named:
            path = f"{path}.{named['name']}" if path else named["name"]
            return InvalidField(sentence.format(path), param=path)
    sentence = what[:1].lower() + what[1:].replace("`", "")
    return InvalidField(f"{path}: {sentence}" if path else sentence, param=path)
