"""The contracts as the transcoder is given them: it binds paths, and leaves queries and bodies to the services."""

from __future__ import annotations

from typing import Final

from google.api import annotations_pb2, http_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2

from services.common.rpc import rest

_BODY: Final = "http_body"
_GOOGLE: Final = "google/"
_HTTP_BODY: Final = httpbody_pb2.HttpBody.DESCRIPTOR


def for_transcoder(descriptors: bytes) -> bytes:
    """Rewrite a descriptor set: a request whose query or body a service reads has its paths' fields, and a body unread.

    Messages stay as they are on the wire; `services.common.rpc.rest` reads the rest.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    messages = {f".{file.package}.{message.name}": message for file in files.file for message in file.message_type}
    for file in files.file:
        file.ClearField("source_code_info")
        for service in file.service:
            for method in service.method:
                request = messages.get(method.input_type)
                if request is not None and (rest.is_typed(method, request) or rest.reads_query(method, request)):
                    file.message_type.append(_narrowed(service.name, method, request))
                    method.input_type = f".{file.package}.{file.message_type[-1].name}"
        if _HTTP_BODY.file.name not in file.dependency and not file.name.startswith(_GOOGLE):
            file.dependency.append(_HTTP_BODY.file.name)
    # Each file stands behind those that it needs, and theirs are Google's alone.
    ordered = sorted(files.file, key=lambda file: not file.name.startswith(_GOOGLE))
    return descriptor_pb2.FileDescriptorSet(file=ordered).SerializeToString()


def _narrowed(
    service: str, method: descriptor_pb2.MethodDescriptorProto, request: descriptor_pb2.DescriptorProto
) -> descriptor_pb2.DescriptorProto:
    """Return the request as REST says it, and bind its body to the one field that holds it."""
    bound = rest.bound(method)
    narrowed = descriptor_pb2.DescriptorProto(
        name=f"{service}{method.name}Rest", field=[field for field in request.field if field.name in bound]
    )
    rule: http_pb2.HttpRule = method.options.Extensions[annotations_pb2.http]
    if rule.body:
        narrowed.field.add(
            name=_BODY,
            number=rest.BODY_FIELD,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type_name=f".{_HTTP_BODY.full_name}",
        )
        for each in (rule, *rule.additional_bindings):
            each.body = _BODY
    return narrowed
