"""What of a chat only OpenAI's protocol knows: kept apart for a provider that speaks it (`VendorFields`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import TooLarge
from services.router.dialects.openai import bodies, image_bodies
from services.router.dialects.tools import ToolCall
from services.router.dialects.unknown import MOST_NAMED, Extra

VENDOR = "openai"
_OF_IMAGES = ("images", "mask")
_TOO_LARGE = f"fields of OpenAI's protocol that nobody here knows may have {vendor_fields.MOST_BYTES} bytes"
_DETAIL = "messages[].content[].image_url.detail"
_CACHE = "cache_control"
"""Typed too (`Part.cache`): Anthropic's word, which many servers of this protocol take."""

_DEFAULTS: Final[Mapping[str, tuple[object, ...]]] = {
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
}
"""What OpenAI takes for granted: no wish that another vendor could fail to fulfil."""


def put(request: GenerateTextRequest, body: bodies.ChatBody, extra: Extra, names: list[str]) -> None:
    """Put what stands beside the messages and the tools into the request. Raises TooLarge."""
    fields = {name: value for name, value in extra.items() if name not in ("messages", "tools")}
    hints = {name: value for name in bodies.HINTS if (value := getattr(body, name)) is not None}
    if hints.get("store") is False:
        del hints["store"]  # Nothing is.
    fields |= hints
    wishes = [name for name, value in hints.items() if value not in _DEFAULTS.get(name, ())]
    named = [name for name in names if not name.endswith(_CACHE)]
    unknown = [name for name in named if not vendor_fields.is_no_op(name, extra.get(name))]
    reported = [*wishes, *unknown, *_details(body)]
    if not fields and not reported:
        # It says whose protocol the caller speaks, all the same: who answers tells of what that vendor alone has.
        request.vendor.vendor = VENDOR
        return
    request.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields, reported[:MOST_NAMED]))
    if request.vendor.names:
        _check_size(request)


def put_image(
    request: GenerateImageRequest, body: image_bodies.ImageBody, extra: Extra, names: Sequence[str]
) -> Sequence[str]:
    """Put what a request for images has beside the contract into it; return the names that have no place there.

    Raises TooLarge.
    """
    inside = tuple(f"{name}{end}" for name in _OF_IMAGES for end in ("[", "."))
    fields = {name: value for name, value in extra.items() if name not in _OF_IMAGES}
    hints = {name: value for name in image_bodies.HINTS if (value := getattr(body, name)) is not None}
    reported = [*hints, *(name for name in names if not name.startswith(inside))]
    request.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields | hints, reported[:MOST_NAMED]))
    if len(request.vendor.json) > vendor_fields.MOST_BYTES:
        raise TooLarge(_TOO_LARGE)
    return [name for name in names if name.startswith(inside)]


def fields_of(event: text_pb2.TextEvent | image_pb2.ImageEvent) -> dict[str, Any]:
    """Return what a piece of an answer carries: `answer`, of all of it; `choice`, `message` and `call`, of its part.

    Of images `answer`, and `image`, of the one at the event's index.
    """
    return vendor_fields.fields_of(event.vendor, VENDOR)


def put_message(turn: text_pb2.Message, message: bodies.Message, extra: Extra) -> None:
    """Put what a turn has beside its parts into it."""
    fields = {name: value for name, value in extra.items() if name not in ("content", "tool_calls")}
    if message.cache_control is not None:
        fields[_CACHE] = message.cache_control
    if message.reasoning_details is not None:
        fields["reasoning_details"] = message.reasoning_details
    _put(turn, fields)


def put_part(part: text_pb2.Part, given: bodies.ContentPart, extra: Extra) -> None:
    """Put what a part has beside its text or image into it."""
    fields: dict[str, Any] = dict(extra)
    if isinstance(given, bodies.ImagePart) and given.image_url.detail is not None:
        fields["image_url"] = {**fields.get("image_url", {}), "detail": given.image_url.detail}
    part.cache = fields.get(_CACHE) is not None
    _put(part, fields)


def put_call(part: text_pb2.Part, call: ToolCall) -> None:
    """Put what an earlier call has beside the contract's fields into its part."""
    if call.extra_content is not None:
        _put(part, {"extra_content": call.extra_content})


def put_tool(tool: text_pb2.Tool, extra: Extra) -> None:
    """Put what a tool has beside the contract's fields into it."""
    tool.cache = extra.get(_CACHE) is not None
    _put(tool, extra)


def _details(body: bodies.ChatBody) -> list[str]:
    """Return the name of the pictures' detail, where it is not what a vendor takes for granted."""
    parts = [part for message in body.messages if isinstance(message.content, list) for part in message.content]
    details = [part.image_url.detail for part in parts if isinstance(part, bodies.ImagePart)]
    return [_DETAIL] if details and any(detail not in (None, "auto") for detail in details) else []


def _put(into: text_pb2.Message | text_pb2.Part | text_pb2.Tool, fields: dict[str, Any]) -> None:
    if fields:
        into.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields))


def _check_size(request: GenerateTextRequest) -> None:
    """Raise TooLarge where the fields are more than pass, all together."""
    size = len(request.vendor.json) + sum(len(tool.vendor.json) for tool in request.tools)
    for message in request.messages:
        size += len(message.vendor.json) + sum(len(part.vendor.json) for part in message.parts)
    if size > vendor_fields.MOST_BYTES:
        raise TooLarge(_TOO_LARGE)
