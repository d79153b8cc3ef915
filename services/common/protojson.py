"""Read JSON into a message strictly: what does not fit is refused, and named by its path in the caller's spelling."""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from moa.common.v1 import limits_pb2
from services.common import words
from services.common.body import refuse_compressed, refuse_form
from services.common.errors import InvalidField, Malformed, TooLarge

F = FieldDescriptor

MOST_VALUES: Final = 50_000
"""How many values a body may hold, its strings' commas and brackets counted too. 20 MiB of `{},{},…` take the JSON
reader 8 s; so many take 50 ms."""

_WHOLE: Final[Mapping[int, tuple[int, int]]] = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_DURATION: Final = "google.protobuf.Duration"
_UNITS_S: Final[Mapping[str, int]] = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PARTS: Final = re.compile(r"(?:[0-9]{1,9}d)?(?:[0-9]{1,9}h)?(?:[0-9]{1,9}m)?(?:[0-9]{1,9}s)?")
_NUMERAL: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
TIMES: Final[Mapping[str, str]] = {
    "google.protobuf.Timestamp": 'a time like "2026-11-20T12:00:00Z"',
    _DURATION: 'a duration like "24h", "90s" or "1h30m", or a number of seconds',
}


class _Written(float):
    """A number with a point or an exponent, as it was written: a float has not all digits of a decimal."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> _Written:
        number = super().__new__(cls, text)
        number.text = text
        return number


def load(data: bytes) -> dict[str, Any]:
    """Return a body's JSON object; an empty body is an empty object.

    Raw control characters inside strings are taken, as everywhere. Raises Malformed, TooLarge, InvalidField.
    """
    if not data.strip():
        return {}
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise TooLarge(f"the body holds more than {MOST_VALUES} values")
    try:
        value = json.loads(
            data.decode(),
            strict=False,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_Written,
        )
    except UnicodeDecodeError:
        refuse_compressed(data)
        raise Malformed("the body is not UTF-8") from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except ValueError as error:
        refuse_form(data)
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Malformed(f"the body is not valid JSON{where}") from None
    if not isinstance(value, dict):
        raise InvalidField("the body must be a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in result if names.count(name) > 1)
        raise InvalidField(f"{twice} is given twice", param=twice)
    return result


def _no_constant(word: str) -> Any:
    raise Malformed(f"{word} is not a number in JSON")


def fill(message: Message, given: Mapping[str, Any], at: str = "") -> None:
    """Set the message's fields, each at most once. `null` leaves one unset. Raises InvalidField."""
    # Not protobuf's own tables: they fail on names that are not UTF-8.
    fields: dict[str, Any] = {field.name: field for field in message.DESCRIPTOR.fields}
    by_json: dict[str, Any] = {field.json_name: field for field in message.DESCRIPTOR.fields}
    seen: set[str] = set()
    for name, value in given.items():
        path = f"{at}.{name}" if at else name
        field = fields.get(name) or by_json.get(name)
        if field is None:
            raise InvalidField(f"unknown field {path}{words.step(name, list(fields))}", param=path)
        group = field.containing_oneof
        slot = field.name if group is None else group.name
        if value is not None and slot in seen:
            raise InvalidField(f"{path} is given beside another field that excludes it", param=path)
        if value is not None:
            seen.add(slot)
            _set(message, field, value, path)
        _note_nulls(message, field, value)


def _note_nulls(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Name the members of an object, or the field, that are null in the list that the contract has for them, if any."""
    nulls = field.GetOptions().Extensions[limits_pb2.limits].nulls
    if not nulls:
        return
    if field.message_type is None:
        if value is None and field.name not in getattr(message, nulls):
            getattr(message, nulls).append(field.name)
        return
    if value is None:
        return
    names = {name: one.name for one in field.message_type.fields for name in (one.name, one.json_name)}
    noted = getattr(message, nulls)
    noted.extend(names[name] for name, member in value.items() if member is None and names[name] not in noted)


def _set(message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
    if not field.is_repeated:
        if field.message_type is None:
            setattr(message, field.name, scalar(field, value, path))
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill_message(inner, value, path)
        return
    if not isinstance(value, list):
        raise InvalidField(f"{path} must be a list", param=path)
    several = getattr(message, field.name)
    for number, one in enumerate(value):
        if field.message_type is None:
            several.append(scalar(field, one, f"{path}[{number}]"))
        else:
            _fill_message(several.add(), one, f"{path}[{number}]")


def _list_of(kind: Any) -> FieldDescriptor | None:
    """Return the field of a message that is nothing but a list, which people write as one; None of others."""
    if len(kind.fields) != 1:
        return None
    only: FieldDescriptor = kind.fields[0]
    return only if only.is_repeated and not kind.GetOptions().map_entry else None


def _fill_message(message: Message, value: Any, path: str) -> None:
    described = TIMES.get(message.DESCRIPTOR.full_name)
    if described is None and isinstance(value, list) and (only := _list_of(message.DESCRIPTOR)) is not None:
        _set(message, only, value, path)
        return
    if described is None:
        if not isinstance(value, dict):
            raise InvalidField(f"{path} must be an object{_written_as(message, value)}", param=path)
        fill(message, value, path)
        return
    if message.DESCRIPTOR.full_name == _DURATION:
        value = _seconds(value)
    try:
        message.FromJsonString(value)  # type: ignore[attr-defined]  # of times alone
    except (ValueError, TypeError, AttributeError):
        raise InvalidField(f"{path} must be {described}", param=path) from None


def _seconds(value: Any) -> Any:
    """Return a duration as proto3's JSON writes it, where people write it with units or as a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return f"{value:.9f}s"
    if isinstance(value, str) and value and _PARTS.fullmatch(value):
        parts = re.findall(r"([0-9]+)([dhms])", value)
        return f"{sum(int(number) * _UNITS_S[unit] for number, unit in parts)}s"
    return value


def _written_as(message: Message, value: Any) -> str:
    """Return how an object is written of which a value is only a word; else which fields it has."""
    fields = message.DESCRIPTOR.fields
    for field in fields if isinstance(value, str) else ():
        near = words.likest(value, _names(field)) if field.enum_type is not None else ""
        if near:
            return f"; write {json.dumps({field.name: [near] if field.is_repeated else near})}"
    return f" of {words.either([field.name for field in fields])}"


def _names(field: Any) -> list[str]:
    """Return the words of an enum's field that say something, as people write them."""
    return [_short(field, one.name) for one in field.enum_type.values if one.number]


def _short(field: FieldDescriptor, name: str) -> str:
    prefix = _prefix(field)
    return name.removeprefix(prefix).lower() if prefix else name


def scalar(field: FieldDescriptor, value: Any, path: str) -> Any:
    """Return a scalar field's value. Numbers may be written as strings, as in proto3's JSON. Raises InvalidField."""
    if field.cpp_type in _WHOLE:
        return _whole(*_WHOLE[field.cpp_type], value, path)
    if field.cpp_type in (F.CPPTYPE_DOUBLE, F.CPPTYPE_FLOAT):
        return _real(value, path)
    if field.cpp_type == F.CPPTYPE_ENUM:
        return _enum(field, value, path)
    if field.cpp_type == F.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise InvalidField(f"{path} must be true or false", param=path)
        return value
    if field.GetOptions().Extensions[limits_pb2.limits].decimal:
        return _decimal(value, path)
    if not isinstance(value, str):
        raise InvalidField(f"{path} must be a string", param=path)
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise InvalidField(f"{path} holds half a surrogate pair", param=path) from None
    return value if field.type == F.TYPE_STRING else _bytes(encoded, path)


def _decimal(value: Any, path: str) -> str:
    """Return a decimal as it was written, as a number or in a string."""
    if isinstance(value, _Written):
        return value.text
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).isascii():
        raise InvalidField(f'{path} must be a decimal, such as 5.00 or "5.00"', param=path)
    return str(value)


def _is_no_number(value: Any) -> bool:
    """Return whether Python alone takes it for a number: true, and digits of other scripts, with spaces or `_`."""
    return isinstance(value, bool) or (isinstance(value, str) and _NUMERAL.fullmatch(value) is None)


def _whole(least: int, most: int, value: Any, path: str) -> int:
    try:
        if _is_no_number(value) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = int(value)
        if not least <= number <= most:
            raise ValueError
    except (ValueError, TypeError):
        raise InvalidField(f"{path} must be a whole number from {least} to {most}", param=path) from None
    return number


def _real(value: Any, path: str) -> float:
    try:
        if _is_no_number(value):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InvalidField(f"{path} must be a finite number", param=path) from None
    return number


def _enum(field: FieldDescriptor, value: Any, path: str) -> int:
    assert field.enum_type is not None  # what an enum's field has
    known = {one.name: one.number for one in field.enum_type.values}
    if isinstance(value, str):
        # People write "admin" for ROLE_ADMIN.
        for name in (value, _prefix(field) + value.upper()):
            if name in known:
                return known[name]
    if isinstance(value, int) and not isinstance(value, bool) and value in field.enum_type.values_by_number:
        return value
    near = words.likest(_short(field, value), _names(field)) if isinstance(value, str) else ""
    hint = f"; did you mean {near}?" if near else ""
    raise InvalidField(f"{path} must be one of {', '.join(_names(field))}{hint}", param=path)


def _prefix(field: FieldDescriptor) -> str:
    """Return what stands before each word of an enum, as before that for nothing in particular."""
    assert field.enum_type is not None
    return field.enum_type.values[0].name.removesuffix("UNSPECIFIED")


def _bytes(text: bytes, path: str) -> bytes:
    """Decode base64 of either alphabet, padded or not, its lines wrapped or not."""
    plain = b"".join(text.split()).translate(_STANDARD).rstrip(b"=")
    try:
        return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
    except binascii.Error:
        raise InvalidField(f"{path} must be base64", param=path) from None
