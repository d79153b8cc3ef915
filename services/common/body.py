"""Read a JSON body into a typed model, with errors that name the field."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from typing import Any, TypeVar

import msgspec

from services.common import words
from services.common.errors import InvalidField, Malformed, MoaError, TooLarge, UnsupportedMedia

T = TypeVar("T")

_MOST_LENIENT = 500_000
"""How many values, and commas in strings, are read by the slow parser: half a second's worth."""

_AT = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How gzip, zstd and deflate begin."""
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")


_WRONG_WORD = ("Invalid enum value", "Invalid value '")
"""How msgspec begins to say that a word is none of those that may stand there, the kind of an object among them."""
_KIND = re.compile(r"`((?:str|int|float|bool|bytes|array|object|null)(?: \| \w+)*)`")
_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "bytes": "base64",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""What msgspec calls after Python, in the words of JSON."""
_MATCHING = re.compile(r"a string( or null)? matching regex '(.*)'$")
_PATTERNS = {
    r"^(auto|\d{1,5}x\d{1,5})$": "auto or WIDTHxHEIGHT, such as 1024x1024",
    r"^\d{1,5}x\d{1,5}$": "WIDTHxHEIGHT, such as 1024x1024",
    r"^\d{1,2}:\d{1,2}$": "a ratio, such as 16:9",
    r"^[A-Za-z0-9_.-]{1,64}$": "1 to 64 letters, digits, dots, dashes and underscores",
    r"^[A-Za-z0-9_.:-]{1,64}$": "1 to 64 letters, digits, dots, colons, dashes and underscores",
}
"""What callers are told of the patterns that bodies have."""
_STEP = re.compile(r"\[[^\]]*\]|[^.\[]+")
_FORM = re.compile(rb"\s*(?:--[^\r\n]{1,200}\r?\n\s*Content-Disposition:|[A-Za-z_][\w.\[\]-]*=)", re.IGNORECASE)
"""How bodies begin that are forms, by either way to write one."""


class UnknownField(InvalidField):
    """A field that the model does not have."""


def parse(data: bytes, decoder: msgspec.json.Decoder[T], *, hints: bool = True) -> T:
    """Return the typed body. Raises Malformed for what is not JSON, InvalidField for what does not fit the model.

    `hints`: whether a field that the model has not is told with what may have been meant, which takes its time.

    Raw control characters inside strings are taken: the documented shell sample makes them (GNU base64 wraps its
    lines). So is NaN, which then fails its field's range by name.

    A bytearray is empty afterwards: of a large body nothing is kept beside what was read of it.
    """
    try:
        result = decoder.decode(data)
        if isinstance(data, bytearray):
            with contextlib.suppress(BufferError):  # a part of it was asked for as it is
                data.clear()
        return result
    except msgspec.ValidationError as error:
        raise field_error(str(error), decoder.type, hints=hints) from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise _no_text(data) from None
    except msgspec.DecodeError as error:
        value = leniently(data, str(error))
    try:
        return msgspec.convert(value, decoder.type)
    except msgspec.ValidationError as error:
        raise field_error(str(error), decoder.type, hints=hints) from None


def refuse_compressed(data: bytes | memoryview) -> None:
    """Raise UnsupportedMedia for a body that cannot be read because it is compressed."""
    if bytes(data[:4]).startswith(_PACKED):
        raise UnsupportedMedia("the body is compressed; send it as it is, without Content-Encoding")


def _no_text(data: bytes) -> MoaError:
    refuse_compressed(data)
    return Malformed("the body holds bytes or escapes that are not Unicode text")


def refuse_form(data: bytes) -> None:
    """Raise Malformed for a body that is a form, however its Content-Type calls it."""
    if _FORM.match(data):
        raise Malformed("the body is a form; send JSON, with Content-Type: application/json")


def leniently(data: bytes, why: str = "") -> Any:
    """Return a body's JSON, with raw control characters and NaN where they are. Raises Malformed, TooLarge."""
    if not data.strip():
        raise Malformed("the body is empty; a JSON object is expected")
    refuse_form(data)
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_LENIENT:
        raise TooLarge(f"a body with raw control characters may hold at most {_MOST_LENIENT} values")
    try:
        value = json.loads(data.decode("utf-8-sig"), strict=False)
        # Escapes can write half of a surrogate pair, which no message can hold.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise _no_text(data) from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except json.JSONDecodeError:
        raise Malformed(f"the body is not valid JSON ({why})" if why else "the body is not valid JSON") from None
    except ValueError:
        raise Malformed("a number in the body has too many digits") from None
    return value


def field_error(text: str, kind_of_body: Any = None, *, hints: bool = False) -> InvalidField:
    """Turn msgspec's sentence into an error with the field's path in the caller's spelling.

    Where a word is not one of those that may stand there, the type of the body tells which may.
    """
    match = _AT.match(text)
    what, path = (match["what"], (match["path"] or "").lstrip(".")) if match else (text, "")
    for pattern, sentence in ((_UNKNOWN, "unknown field {}"), (_MISSING, "{} is required")):
        named = pattern.match(what)
        if named:
            above, name = path, named["name"]
            path = f"{above}.{name}" if above else name
            if pattern is _MISSING:
                return InvalidField(sentence.format(path), param=path)
            step = words.step(name, _fields_at(kind_of_body, above)) if hints and kind_of_body is not None else ""
            return UnknownField(sentence.format(path) + step, param=path)
    if what.startswith(_WRONG_WORD) and kind_of_body is not None and (known := _words_at(kind_of_body, path)):
        what += f"; use {words.either(known)}"
    what = _MATCHING.sub(_described, _KIND.sub(_in_words_of_json, what))
    sentence = ("a key: " if match and match["key"] else "") + what[:1].lower() + what[1:].replace("`", "")
    return InvalidField(f"{path}: {sentence}" if path else sentence, param=path)


_type_of = functools.cache(msgspec.inspect.type_info)


def _described(matching: re.Match[str]) -> str:
    described = _PATTERNS.get(matching[2].replace("\\\\", "\\"))
    return f"{described}{matching[1] or ''}" if described else matching[0]


def _in_words_of_json(kinds: re.Match[str]) -> str:
    return " or ".join(dict.fromkeys(_WORDS.get(kind, kind) for kind in kinds[1].split(" | ")))


def _words_at(kind: Any, path: str) -> tuple[str, ...]:
    """Return the words that may stand at a path of a type; none where that cannot be told."""
    kinds: list[msgspec.inspect.Type] = [_type_of(kind)]
    tags: set[str] = set()
    for step in _STEP.findall(path):
        structs = [one for each in kinds for one in _alternatives(each) if isinstance(one, msgspec.inspect.StructType)]
        tags = {str(one.tag) for one in structs if one.tag_field == step}
        kinds = [inner for each in kinds for inner in _inside(each, step)]
    literals = {str(word) for each in kinds for one in _alternatives(each) for word in _literals(one)}
    return tuple(sorted(tags | literals - {""}))


def _fields_at(kind: Any, path: str) -> list[str]:
    """Return the fields of the objects that may stand at a path of a type."""
    kinds: list[msgspec.inspect.Type] = [_type_of(kind)]
    for step in _STEP.findall(path):
        kinds = [inner for each in kinds for inner in _inside(each, step)]
    structs = [one for each in kinds for one in _alternatives(each) if isinstance(one, msgspec.inspect.StructType)]
    return [field.encode_name for struct in structs for field in struct.fields]


def _alternatives(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    if isinstance(kind, msgspec.inspect.UnionType):
        return tuple(one for each in kind.types for one in _alternatives(each))
    if isinstance(kind, msgspec.inspect.Metadata):
        return _alternatives(kind.type)
    return (kind,)


def _literals(kind: msgspec.inspect.Type) -> tuple[Any, ...]:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return kind.values
    return tuple(member.value for member in kind.cls) if isinstance(kind, msgspec.inspect.EnumType) else ()


def _inside(kind: msgspec.inspect.Type, step: str) -> list[msgspec.inspect.Type]:
    found: list[msgspec.inspect.Type] = []
    for each in _alternatives(kind):
        if isinstance(each, msgspec.inspect.StructType):
            found += [field.type for field in each.fields if field.encode_name == step]
        elif isinstance(each, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and step.startswith("["):
            found.append(each.item_type)
        elif isinstance(each, msgspec.inspect.DictType):
            found.append(each.value_type)
    return found
