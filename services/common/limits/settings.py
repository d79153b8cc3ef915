"""The settings of a message: fields that may be given or not and hold a number, a text, a word of an enum, a list of
these, or a message that has settings only.

Dialects, adapters and engines read and write them by name, whatever their kind. As values they are what JSON has: an
enum's word is its value's name without the enum's, in lower case, and a message is an object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from msgspec import Meta, Struct, defstruct, structs

from services.common.limits.fields import is_map
from services.common.limits.meta import meta

_WHOLE: Final = frozenset(
    (
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_UINT64,
    )
)
_KINDS: Final = {
    **dict.fromkeys(_WHOLE, int),
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_STRING: str,
}


def settings(message: type[Message]) -> tuple[str, ...]:
    """Return the names of a message's settings, in their order."""
    return tuple(field.name for field in message.DESCRIPTOR.fields if _is_setting(field))


def camel_settings(message: type[Message]) -> dict[str, str]:
    """Return `settings`, each with its name in camel case."""
    return {name: str(_described(message, name).json_name) for name in settings(message)}


def shape(message: type[Message], name: str, *, camel: bool = False) -> Any:
    """Return the type of a setting's values in a body, with its limits; `camel`: of an object's names."""
    field = _described(message, name)
    if field.message_type is not None:
        return _object(field.message_type, camel=camel)
    if not field.is_repeated:
        return _plain(field) if field.enum_type is not None else Annotated[_plain(field), meta(message, name)]
    item = Annotated[int, Meta(ge=0, le=2**31 - 1)] if field.type == FieldDescriptor.TYPE_UINT32 else _plain(field)
    return Annotated[list[item], meta(message, name)]  # type: ignore[valid-type]  # made of the descriptor


def given_settings(message: Message) -> Iterator[tuple[str, Any]]:
    """Yield the settings that a message has, with their values."""
    for field, value in message.ListFields():
        if not _is_setting(field):
            continue
        if field.message_type is not None:
            yield field.name, dict(given_settings(value))
        elif field.enum_type is not None:
            words = _words(field.enum_type)
            yield field.name, [words[each] for each in value] if field.is_repeated else words[value]
        else:
            yield field.name, list(value) if field.is_repeated else value


def put(message: Message, name: str, value: Any) -> None:
    """Set a setting. A whole number loses its fraction. Raises TypeError or ValueError for a value of another kind."""
    field = _described(type(message), name)
    if field.message_type is not None:
        _put_object(getattr(message, name), value)
        return
    if field.enum_type is not None:
        numbers = {word: number for number, word in _words(field.enum_type).items()}
        try:
            value = [numbers[each] for each in value] if field.is_repeated else numbers[value]
        except KeyError as error:
            raise ValueError(f"no such word: {error}") from None
    elif field.type in _WHOLE and isinstance(value, float):
        value = math.floor(value)
    if field.is_repeated:
        del getattr(message, name)[:]
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)


def _put_object(message: Message, value: Struct | Mapping[str, Any]) -> None:
    given = structs.asdict(value) if isinstance(value, Struct) else dict(value)
    if unknown := given.keys() - set(settings(type(message))):
        raise ValueError(f"no such setting: {min(unknown)}")
    message.Clear()
    message.SetInParent()
    for name, each in given.items():
        if each is not None:
            put(message, name, each)


@cache
def _object(described: Descriptor, *, camel: bool) -> type[Struct]:
    """Return the type of an object of a message's settings: one type, as OpenAPI names each."""
    message = GetMessageClass(described)
    fields = [(name, shape(message, name, camel=camel) | None, None) for name in settings(message)]
    how: dict[str, Any] = {"kw_only": True, "forbid_unknown_fields": True, "module": __name__}
    if camel:
        return defstruct(f"Camel{message.__name__}", fields, rename="camel", **how)
    return defstruct(message.__name__, fields, **how)


@cache
def _is_setting(field: FieldDescriptor) -> bool:
    if is_map(field) or not (field.has_presence or field.is_repeated):
        return False
    if field.message_type is not None:
        fields = field.message_type.fields
        return (
            not field.is_repeated and field.containing_oneof is None and bool(fields) and all(map(_is_setting, fields))
        )
    return field.enum_type is not None or field.type in _KINDS


def _plain(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return Literal[tuple(_words(field.enum_type).values())]
    return _KINDS[field.type]


@cache
def _words(enum: EnumDescriptor) -> dict[int, str]:
    """Return the words of an enum's values but the first, which nobody gives."""
    start = len(enum.values[0].name.removesuffix("UNSPECIFIED"))
    return {value.number: value.name[start:].lower() for value in enum.values[1:]}


def _described(message: type[Message], name: str) -> FieldDescriptor:
    return cast(FieldDescriptor, message.DESCRIPTOR.fields_by_name[name])
