"""How a REST request becomes a typed message: the edge binds the path, and this reads the query and the body.

Envoy's transcoder passes over what a message does not have, in a body and in a query, and has no switch for a body.
So the edge leaves both alone (`gateway.contracts`): the body arrives as it is, in a field that no contract has, and the
query in the header that names the original path. Here each field is known, or refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from google.api import annotations_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from services.common import protojson, words
from services.common.errors import InvalidField, Malformed

BODY_FIELD: Final = 2**29 - 1
"""Which field of a request holds the body, a google.api.HttpBody: the last number there is."""
ORIGINAL_PATH: Final = "x-envoy-original-path"
"""Metadata that the edge alone sets: the path and query that a REST caller asked for."""

_RAW: Final = f".{httpbody_pb2.HttpBody.DESCRIPTOR.full_name}"
_VARIABLE: Final = re.compile(r"\{([a-z0-9_.]+)")
_MOST_PARAMETERS: Final = 100
_F: Final = descriptor_pb2.FieldDescriptorProto
_NOT_ANY_TEXT: Final = frozenset(
    (_F.TYPE_INT32, _F.TYPE_INT64, _F.TYPE_UINT32, _F.TYPE_UINT64, _F.TYPE_BOOL, _F.TYPE_DOUBLE, _F.TYPE_FLOAT)
)

Read = Callable[[Any, str], None]
"""Completes a message, from the original path."""


def is_typed(method: descriptor_pb2.MethodDescriptorProto, request: descriptor_pb2.DescriptorProto) -> bool:
    """Return whether a method has REST bindings, and neither takes nor gives a raw body."""
    return (
        method.options.HasExtension(annotations_pb2.http)
        and _RAW not in (method.input_type, method.output_type)
        and all(field.type_name != _RAW for field in request.field)
    )


def reads_query(method: descriptor_pb2.MethodDescriptorProto, request: descriptor_pb2.DescriptorProto) -> bool:
    """Return whether a method that gives a raw answer and takes no body has parameters that not every text can be.

    The edge would refuse such a text without saying of which parameter it is.
    """
    if not method.options.HasExtension(annotations_pb2.http) or is_typed(method, request):
        return False
    if method.input_type == _RAW or method.options.Extensions[annotations_pb2.http].body:
        return False
    fields = {field.name for field in request.field if field.type in _NOT_ANY_TEXT}
    return bool(fields and fields - bound(method))


def bound(method: descriptor_pb2.MethodDescriptorProto) -> frozenset[str]:
    """Return the fields that some path of the method binds."""
    return frozenset(name for path in _paths(method) for name in _VARIABLE.findall(path))


def _paths(method: descriptor_pb2.MethodDescriptorProto) -> list[str]:
    """Return the templates of the method's paths."""
    rule = method.options.Extensions[annotations_pb2.http]
    return [getattr(each, each.WhichOneof("pattern")) for each in (rule, *rule.additional_bindings)]


def reader(path: str) -> Read | None:
    """Return what completes the messages of a method (`/package.Service/Method`); None when none is needed."""
    try:
        method = descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    except KeyError:
        return None
    proto, request = descriptor_pb2.MethodDescriptorProto(), descriptor_pb2.DescriptorProto()
    method.CopyToProto(proto)
    method.input_type.CopyToProto(request)
    if reads_query(proto, request):
        return _Reader(method, proto, takes_body=False, ignores_unknown=True).read
    if not is_typed(proto, request):
        return None
    return _Reader(method, proto, takes_body=bool(proto.options.Extensions[annotations_pb2.http].body)).read


def read_query(path: str, message: Message, original: str) -> None:
    """Complete a message of a method (`/package.Service/Method`) whose answer is a raw body. Raises InvalidField."""
    method = descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    proto = descriptor_pb2.MethodDescriptorProto()
    method.CopyToProto(proto)
    _Reader(method, proto, takes_body=False).read(message, original)


def request_of(path: str) -> type[Message] | None:
    """Return the kind of message that a method (`/package.Service/Method`) takes; None for one that is not known."""
    try:
        method = descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    except KeyError:
        return None
    kind: type[Message] = message_factory.GetMessageClass(method.input_type)
    return kind


class _Reader:
    """Completes the messages of a method. `ignores_unknown`: parameters that it does not have, as vendors' APIs do."""

    def __init__(
        self,
        method: MethodDescriptor,
        proto: descriptor_pb2.MethodDescriptorProto,
        *,
        takes_body: bool,
        ignores_unknown: bool = False,
    ) -> None:
        self._takes_body = takes_body
        self._ignores_unknown = ignores_unknown
        self._in_path = bound(proto)
        fields = [
            field
            for field in method.input_type.fields
            if not takes_body and (field.message_type is None or field.message_type.full_name in protojson.TIMES)
        ]
        templates = _paths(proto)
        self._parameters = [
            (re.compile(_matching(template)), _named(fields, frozenset(_VARIABLE.findall(template))))
            for template in templates
        ]
        """What a query may say, by the path that it is behind: what one path binds may be a parameter of another's."""
        self._of_any = _named(fields, self._in_path)

    def read(self, message: Message, original: str) -> None:
        """Complete a message of a REST call."""
        if self._takes_body:
            self._read_body(message)
        path, _, query = original.partition("?")
        if query:
            self._read_query(message, query, self._parameters_of(path))

    def _parameters_of(self, path: str) -> Mapping[str, FieldDescriptor]:
        for matching, parameters in self._parameters:
            if matching.fullmatch(path):
                return parameters
        return self._of_any

    def _read_body(self, message: Message) -> None:
        body = httpbody_pb2.HttpBody()
        for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]  # the stubs lack it
            if unknown.field_number == BODY_FIELD and isinstance(unknown.data, bytes):
                body.MergeFromString(unknown.data)
        message.DiscardUnknownFields()
        given = protojson.load(body.data)
        for name in self._in_path & given.keys():
            # Who sends back what they were given says the same thing twice.
            if given.pop(name) != getattr(message, name):
                raise InvalidField(f"{name} is not the one in the path", param=name)
        protojson.fill(message, given)

    def _read_query(self, message: Message, query: str, parameters: Mapping[str, FieldDescriptor]) -> None:
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            raise Malformed("the query cannot be read") from None
        seen: set[str] = set()
        for name, text in pairs:
            field = parameters.get(name)
            if field is None and self._ignores_unknown:
                continue
            if field is None:
                known = sorted({each.name for each in parameters.values()})
                raise InvalidField(f"unknown query parameter {name}{words.step(name, known)}", param=name)
            if field.is_repeated:
                if field.name not in seen:
                    message.ClearField(field.name)
                    seen.add(field.name)
                getattr(message, field.name).append(_scalar(field, text, name))
                continue
            if field.name in seen:
                raise InvalidField(f"{name} is given twice", param=name)
            seen.add(field.name)
            if field.message_type is not None:
                protojson.fill(message, {field.name: text})
                continue
            setattr(message, field.name, _scalar(field, text, name))


def _matching(template: str) -> str:
    """Return the regular expression of a template's paths."""
    return "".join(
        "[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", template) if part
    )


def _named(fields: Iterable[FieldDescriptor], but: Collection[str]) -> dict[str, FieldDescriptor]:
    """Return fields by the names that a query gives them."""
    return {name: field for field in fields if field.name not in but for name in (field.json_name, field.name)}


def _scalar(field: FieldDescriptor, text: str, name: str) -> Any:
    """Return the value that a query says: all of them are text there."""
    value: Any = text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        value = {"true": True, "false": False}.get(text, text)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM and text.isascii() and text.isdigit():
        value = int(text)
    return protojson.scalar(field, value, name)
