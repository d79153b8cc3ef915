"""What of a request only Google's API knows: kept apart for a provider that speaks it (`VendorFields`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import TooLarge
from services.router.dialects.google import bodies
from services.router.dialects.unknown import MOST_NAMED, Extra

VENDOR = "google"
OWN_SIZE = "512"
"""The size of images that only Gemini's models have."""

Json = dict[str, Any]

_PART_FIELDS = ("videoMetadata", "mediaResolution", "partMetadata", "executableCode", "codeExecutionResult")
_APART = ("contents", "systemInstruction", "tools")
"""Where each item carries its own."""


def put(request: GenerateTextRequest, body: bodies.GenerateContentBody, extra: Extra, names: list[str]) -> None:
    """Put what stands beside contents and tools into the request. Raises TooLarge."""
    fields: Json = {name: value for name, value in extra.items() if name not in _APART}
    hints = set_fields(body, bodies.HINTS)
    fields |= hints
    reported = list(hints)
    config = body.generation_config
    if config is not None:
        inside = set_fields(config, bodies.CONFIG_HINTS)
        reported += (f"generationConfig.{name}" for name in inside)
        thinking = config.thinking_config
        if thinking is not None and thinking.thinking_budget == -1:
            inside["thinkingConfig"] = {"thinkingBudget": -1}
        if request.response_format.choices and config.response_schema is not None:
            # What is said of the words beside them.
            inside["responseSchema"] = config.response_schema
        if inside:
            fields["generationConfig"] = fields.get("generationConfig", {}) | inside
    choosing: Json = fields.get("toolConfig", {})
    if body.tool_config is not None:
        choosing |= set_fields(body.tool_config, ("retrievalConfig", "includeServerSideToolInvocations"))
        calling = body.tool_config.function_calling_config
        if calling is not None and calling.mode == "VALIDATED":
            choosing["functionCallingConfig"] = {"mode": "VALIDATED"}
    if choosing:
        fields["toolConfig"] = choosing
    request.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields, [*reported, *names][:MOST_NAMED]))
    _check_size(request)


def put_image(request: GenerateImageRequest, body: bodies.GenerateContentBody, extra: Extra, names: list[str]) -> None:
    """Put what images do not need and Gemini takes into a request for them. Raises TooLarge."""
    fields: Json = {name: value for name, value in extra.items() if name not in _APART}
    hints = set_fields(body, bodies.HINTS)
    reported = list(hints)
    fields |= hints
    if body.generation_config is not None:
        inside = set_fields(body.generation_config, (*bodies.CONFIG_HINTS, *bodies.IGNORED_FOR_IMAGES))
        reported += (f"generationConfig.{name}" for name in inside)
        picture = body.generation_config.image_config
        if picture is not None and picture.image_size == OWN_SIZE:
            # Smaller than any quality: for whoever knows it, others make what they make when nothing is said.
            inside["imageConfig"] = {"imageSize": OWN_SIZE}
            reported.append("generationConfig.imageConfig.imageSize")
        if inside:
            fields["generationConfig"] = fields.get("generationConfig", {}) | _plain(inside)
    request.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields, [*reported, *names][:MOST_NAMED]))
    if len(request.vendor.json) > vendor_fields.MOST_BYTES:
        raise TooLarge(f"fields of Google's own may have {vendor_fields.MOST_BYTES} bytes in all")


def _plain(value: Any) -> Any:
    """Return structs as objects, without what is not set."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if inner is not None}
    return value


def put_part(part: text_pb2.Part, given: bodies.Part, extra: Extra) -> None:
    """Put what a part is or has beyond the contract into it."""
    fields: Json = {**extra, **set_fields(given, _PART_FIELDS)}
    kind = part.WhichOneof("part")
    if given.thought_signature and (kind == "text" or (kind is None and fields)):
        fields["thoughtSignature"] = given.thought_signature
    if fields:
        part.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields))


def is_own(given: bodies.Part, extra: Extra) -> bool:
    """Return whether a part is of a kind that only Google knows."""
    return bool(extra) or given.executable_code is not None or given.code_execution_result is not None


def put_function(tool: text_pb2.Tool, given: bodies.FunctionDeclaration, extra: Extra) -> None:
    """Put what a function has beyond the contract into it."""
    fields: Json = {**extra, **set_fields(given, ("behavior", "response", "responseJsonSchema"))}
    if fields:
        tool.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields))


def own_tools(given: bodies.Tool, extra: Extra) -> Iterable[text_pb2.Tool]:
    """Yield the tools in it that run at Google."""
    fields: Json = {name: value for name, value in extra.items() if name != "functionDeclarations"}
    fields |= set_fields(given, bodies.OWN_TOOLS)
    for name, value in fields.items():
        yield text_pb2.Tool(vendor=vendor_fields.envelope(VENDOR, {name: value}))


def set_fields(of: msgspec.Struct, names: Iterable[str]) -> Json:
    """Return those of the fields, as the wire spells them, that are set."""
    by_wire = _WIRES.get(type(of)) or _WIRES.setdefault(
        type(of), dict(zip(of.__struct_encode_fields__, of.__struct_fields__, strict=True))
    )
    return {name: value for name in names if (value := getattr(of, by_wire[name])) is not None}


_WIRES: dict[type, dict[str, str]] = {}


def fields_of(event: text_pb2.TextEvent) -> Json:
    """Return what a piece of an answer carries: `answer`, of all of it; `candidate`, `part`, of what it is about."""
    return vendor_fields.fields_of(event.vendor, VENDOR)


def _check_size(request: GenerateTextRequest) -> None:
    size = len(request.vendor.json) + sum(len(tool.vendor.json) for tool in request.tools)
    size += sum(len(part.vendor.json) for message in request.messages for part in message.parts)
    if size > vendor_fields.MOST_BYTES:
        raise TooLarge(f"fields of Google's own may have {vendor_fields.MOST_BYTES} bytes in all")
