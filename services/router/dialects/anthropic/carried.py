"""What of a conversation only Anthropic's API knows: kept apart for a provider that speaks it (`VendorFields`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import TooLarge
from services.router.dialects.anthropic import bodies
from services.router.dialects.unknown import MOST_NAMED, Extra, printable

VENDOR: Final = "anthropic"
BETA_KEY: Final = "anthropic-beta"
"""The header by which callers ask for what is not in the API yet; its name in the request's envelope too."""
_TOO_LARGE = f"fields of Anthropic's own may have {vendor_fields.MOST_BYTES} bytes in all"
_PLACED: Final = ("system", "messages", "tools")
"""Where each item carries its own."""
_CACHE: Final = "cache_control"
_PLAIN_MARKS: Final = (None, {"type": "ephemeral"})
"""Typed (`Part.cache`)."""
_DEFAULTS: Final[Mapping[str, tuple[object, ...]]] = {"service_tier": ("auto",), "speed": ("standard",)}
"""What Anthropic takes for granted: no wish that another vendor could fail to fulfil."""

Json = dict[str, Any]


def put(
    request: GenerateTextRequest, body: bodies.MessageBody, extra: Extra, names: Sequence[str], betas: Sequence[str]
) -> None:
    """Put what stands beside the messages and the tools into the request. Raises TooLarge."""
    fields: Json = {name: value for name, value in extra.items() if name not in _PLACED}
    hints = {name: value for name in bodies.HINTS if (value := getattr(body, name)) is not None}
    fields |= hints
    for name, value in _of_reasoning(body).items():
        fields[name] = fields.get(name, {}) | value
    if betas:
        fields[BETA_KEY] = list(betas)
    wishes = [name for name, value in hints.items() if value not in _DEFAULTS.get(name, ())]
    wishes += [name for name in names if not name.endswith(_CACHE)]
    if betas:
        wishes.append(BETA_KEY)
    request.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields, wishes[:MOST_NAMED]))
    _check_size(request)


def _of_reasoning(body: bodies.MessageBody) -> Json:
    """Return what the contract has no finer word for: a model that has it takes it as it was."""
    found: Json = {}
    if body.thinking is not None:
        found["thinking"] = {"type": body.thinking.type}
        if body.thinking.display is not None:
            found["thinking"]["display"] = body.thinking.display
    if body.output_config is not None and body.output_config.effort is not None:
        found["output_config"] = {"effort": body.output_config.effort}
    return found


def put_part(part: text_pb2.Part, given: bodies.Block, extra: Extra, spans: Json | None = None) -> None:
    """Put what a part has beside the contract's fields into it; `spans` says where a document's text is in it."""
    fields: Json = {**extra, **(spans or {})}
    if spans and given.title is not None:
        fields["title"] = given.title
    if given.cache_control not in _PLAIN_MARKS:
        fields[_CACHE] = given.cache_control
    for name in ("citations", "context"):
        if getattr(given, name) is not None:
            fields[name] = getattr(given, name)
    _put(part, fields)


def own_part(given: bodies.Block, extra: Extra) -> text_pb2.Part:
    """Return a block of a kind that only Anthropic knows."""
    fields = {name: value for name, value in msgspec.to_builtins(given).items() if value is not None}
    return text_pb2.Part(vendor=vendor_fields.envelope(VENDOR, fields | extra, [printable(given.type)]))


def put_tool(tool: text_pb2.Tool, given: bodies.Tool, extra: Extra) -> None:
    """Put what a tool has beside the contract's fields into it."""
    fields: Json = dict(extra)
    if given.cache_control not in _PLAIN_MARKS:
        fields[_CACHE] = given.cache_control
    _put(tool, fields)


def own_tool(given: bodies.Tool, extra: Extra) -> text_pb2.Tool:
    """Return a tool that Anthropic defines."""
    fields = {name: value for name, value in msgspec.to_builtins(given).items() if value is not None}
    return text_pb2.Tool(vendor=vendor_fields.envelope(VENDOR, fields | extra, [printable(given.type or "")]))


def servers(given: Sequence[Json]) -> text_pb2.Tool:
    """Return the servers whose tools Anthropic calls."""
    return text_pb2.Tool(vendor=vendor_fields.envelope(VENDOR, {"mcp_servers": list(given)}, ["mcp_servers"]))


def fields_of(event: text_pb2.TextEvent) -> Json:
    """Return what a piece of an answer carries: `answer`, of all of it; `text`, `call`, `block` and `delta`."""
    return vendor_fields.fields_of(event.vendor, VENDOR)


def _put(into: text_pb2.Part | text_pb2.Tool, fields: Json) -> None:
    if fields:
        into.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields))


def _check_size(request: GenerateTextRequest) -> None:
    """Raise TooLarge where the fields are more than pass, all together."""
    size = len(request.vendor.json) + sum(len(tool.vendor.json) for tool in request.tools)
    size += sum(len(part.vendor.json) for message in request.messages for part in message.parts)
    if size > vendor_fields.MOST_BYTES:
        raise TooLarge(_TOO_LARGE)
