"""Messages of the contracts as JSON Schema, the way the edge prints and reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

from google.protobuf import descriptor_pb2

from moa.common.v1 import limits_pb2

Json = dict[str, Any]
F = descriptor_pb2.FieldDescriptorProto

_SCALARS: Mapping[int, Json] = {
    F.TYPE_DOUBLE: {"type": "number"},
    F.TYPE_FLOAT: {"type": "number"},
    F.TYPE_BOOL: {"type": "boolean"},
    F.TYPE_STRING: {"type": "string"},
    F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    **{key: {"type": "integer", "format": "int32"} for key in (F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32)},
    **{key: {"type": "integer", "minimum": 0} for key in (F.TYPE_UINT32, F.TYPE_FIXED32)},
    # Proto JSON prints 64 bits as a string, and reads a number too.
    **{
        key: {"type": ["string", "integer"]}
        for key in (F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_SINT64, F.TYPE_FIXED64, F.TYPE_SFIXED64)
    },
}
_KNOWN: Mapping[str, Json] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    ".google.protobuf.FieldMask": {"type": "string"},
    ".google.protobuf.Empty": {"type": "object"},
}


class Contracts:
    """The descriptor set, by name, with the comments of its source."""

    def __init__(self, descriptors: bytes) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
        self.messages: dict[str, descriptor_pb2.DescriptorProto] = {}
        self.enums: dict[str, descriptor_pb2.EnumDescriptorProto] = {}
        self.comments: dict[str, str] = {}
        self.services: list[tuple[str, descriptor_pb2.ServiceDescriptorProto]] = []
        for file in files.file:
            comments = {tuple(at.path): _tidy(at.leading_comments) for at in file.source_code_info.location}
            for at, message in enumerate(file.message_type):
                self._add(f".{file.package}", message, (4, at), comments)
            for at, enum in enumerate(file.enum_type):
                self._name_enum(f".{file.package}.{enum.name}", enum, (5, at), comments)
            for at, service in enumerate(file.service):
                name = f"{file.package}.{service.name}"
                self.services.append((name, service))
                self.comments[name] = comments.get((6, at), "")
                for number, method in enumerate(service.method):
                    self.comments[f"{name}.{method.name}"] = comments.get((6, at, 2, number), "")

    def _add(
        self,
        scope: str,
        message: descriptor_pb2.DescriptorProto,
        path: tuple[int, ...],
        comments: Mapping[tuple[int, ...], str],
    ) -> None:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        self.comments[name] = comments.get(path, "")
        for at, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = comments.get((*path, 2, at), "")
        for at, inner in enumerate(message.nested_type):
            self._add(name, inner, (*path, 3, at), comments)
        for at, enum in enumerate(message.enum_type):
            self._name_enum(f"{name}.{enum.name}", enum, (*path, 4, at), comments)

    def _name_enum(
        self,
        name: str,
        enum: descriptor_pb2.EnumDescriptorProto,
        path: tuple[int, ...],
        comments: Mapping[tuple[int, ...], str],
    ) -> None:
        self.enums[name] = enum
        self.comments[name] = comments.get(path, "")


def _limited(field: descriptor_pb2.FieldDescriptorProto) -> Json:
    """Return what a field's limits say, in JSON Schema's words."""
    limits = field.options.Extensions[limits_pb2.limits]
    many, is_text = field.label == F.LABEL_REPEATED, field.type == F.TYPE_STRING
    found: Json = {}
    if many and is_text and (limits.pattern or limits.words):
        return found  # of the items, which have no place of their own here
    if limits.HasField("at_least") and not many:
        found["minimum"] = _written(limits.at_least)
    if limits.HasField("at_most") and not many:
        found["maximum"] = _written(limits.at_most)
    if limits.required and (many or is_text):
        found["minItems" if many else "minLength"] = 1
    if limits.HasField("most"):
        found["maxItems" if many else "maxLength"] = limits.most
    if limits.pattern:
        found["pattern"] = f"^(?:{limits.pattern})$"
    if limits.words:
        found["enum"] = ["", *limits.words]
    return found


def _written(value: float) -> float:
    return int(value) if value.is_integer() else value


def _tidy(comment: str) -> str:
    return " ".join(comment.split())


class Schemas:
    """Schemas of the messages that were asked for, and of those inside them."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self.components: dict[str, Json] = {}

    def ref(self, name: str) -> Json:
        """Return a reference to a message or an enum, by its full name with a leading dot."""
        if name in _KNOWN:
            return dict(_KNOWN[name])
        key = name.lstrip(".")
        if key not in self.components:
            self.components[key] = {}
            if name in self._contracts.enums:
                values = [value.name for value in self._contracts.enums[name].value]
                self.components[key] |= {"type": "string", "enum": values} | self._description(name)
            else:
                self.components[key] |= self.object(name)
        return {"$ref": f"#/components/schemas/{key}"}

    def object(self, name: str, *, without: Set[str] = frozenset()) -> Json:
        """Return a message as an object; `without` are fields that come elsewhere, in the path say."""
        return {"type": "object", "properties": dict(self.fields(name, without=without))} | self._description(name)

    def fields(self, name: str, *, without: Set[str] = frozenset()) -> Iterator[tuple[str, Json]]:
        """Yield a message's fields with their schemas; those of `without` are not described at all."""
        for field in self._contracts.messages[name].field:
            if field.name not in without:
                yield field.name, self.field(name, field)

    def field(self, owner: str, field: descriptor_pb2.FieldDescriptorProto) -> Json:
        """Return one field's schema."""
        comments = self._description(f"{owner}.{field.name}") | _limited(field)
        if field.options.Extensions[limits_pb2.limits].decimal:
            # Printed as strings, and read as numbers too, taken exactly.
            schema: Json = {"type": ["string", "number"]}
        elif field.type in _SCALARS:
            schema = dict(_SCALARS[field.type])
        else:
            entry = self._contracts.messages.get(field.type_name)
            if entry is not None and entry.options.map_entry:
                value = self.field(field.type_name, entry.field[1])
                return {"type": "object", "additionalProperties": value} | comments
            schema = self.ref(field.type_name)
            if entry is not None and len(entry.field) == 1 and entry.field[0].label == F.LABEL_REPEATED:
                # What is nothing but a list may be written as one.
                schema = {"anyOf": [schema, self.field(field.type_name, entry.field[0])]}
        if field.label == F.LABEL_REPEATED:
            return {"type": "array", "items": schema} | comments
        return schema | comments

    def _description(self, name: str) -> Json:
        comment = self._contracts.comments.get(name)
        return {"description": comment} if comment else {}
