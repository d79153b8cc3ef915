"""What passes between callers of OpenAI's image paths and providers of its image API: fields that no contract types.

As for texts (`text/carried.py`), everything passes but what is ours to decide. `DENIED` says what that is, and why.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from moa.image.v1.image_pb2 import ImageEvent, Operation
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model
from services.common import vendor_fields
from services.providers.image import capable
from services.providers.openai.text import carried
from services.providers.text.carrying import carried_of
from services.providers.text.ignored import Ignored

VENDOR: Final = carried.VENDOR

Json = dict[str, Any]

_TYPED: Final = "the gateway has it in its own form"

DENIED: Final[Mapping[str, str]] = {
    **carried.DENIED,
    **dict.fromkeys(("prompt", "image", "images", "image[]", "mask", "size", "quality", "style", "background"), _TYPED),
    **dict.fromkeys(("response_format", "output_format", "output_compression", "partial_images"), _TYPED),
    **dict.fromkeys(("moderation", "user", "seed"), _TYPED),
}
"""Beside what denied names of texts are: an image's own."""

_OF_EDITS: Final = frozenset(("input_fidelity",))
"""What OpenAI's models take beside what is typed, where they change images. They refuse what they do not know."""

_KNOWN_ANSWER: Final = frozenset(
    ("created", "data", "usage", "background", "output_format", "quality", "size", "error", "type", "b64_json")
) | {"created_at", "partial_image_index", "object"}
_KNOWN_IMAGE: Final = frozenset(("b64_json", "url", "revised_prompt"))
_KNOWN_USAGE: Final = frozenset(("input_tokens", "output_tokens", "total_tokens"))
_DETAILS: Final = ("input_tokens_details", "output_tokens_details")
_KNOWN_DETAILS: Final = frozenset(("image_tokens", "text_tokens", "cached_tokens"))


def passing(request: GenerateImageRequest, model: Model, ignored: Ignored, *, documented: bool) -> Json:
    """Return the fields that pass, and note the others. Raises InvalidField for what is no object.

    `documented`: whether the provider takes only what OpenAI documents.
    """
    fields = vendor_fields.fields_of(request.vendor, VENDOR)
    passed: Json = {}
    for name, value in fields.items():
        why = _why_not(name, value, request, model, documented=documented)
        if why:
            ignored.add(name, f"{name} is not passed on: {why}")
        else:
            passed[name] = value
    return passed


def _why_not(name: str, value: Any, request: GenerateImageRequest, model: Model, *, documented: bool) -> str:
    if name in DENIED:
        return DENIED[name]
    if name == "service_tier" and value in carried.DEAR_TIERS:
        return carried.COSTS
    if name == "file_id" or (isinstance(value, dict) and "file_id" in value):
        return carried.STORED
    if not documented:
        return ""
    if model.limits.response_format:
        return "OpenAI's models before gpt-image do not take it"
    if name not in _OF_EDITS:
        return "OpenAI does not take it"
    return "" if _changes(request) else "it concerns images that are changed"


def _changes(request: GenerateImageRequest) -> bool:
    return capable.operation_of(request) != Operation.OPERATION_GENERATE or bool(request.images)


def of_answer(piece: Mapping[str, Any], restored: Callable[[Any], Any], index: int = 0) -> list[ImageEvent]:
    """Return the events of what an answer, or an event of a stream, says beside what is typed.

    Args:
        restored: Puts what was taken out of the bytes back into a value.
        index: Of the image that an event of a stream holds.
    """
    found = _beyond(piece, _KNOWN_ANSWER)
    usage = piece.get("usage")
    if isinstance(usage, dict) and (counts := _counts_beyond(usage)):
        found["usage"] = counts
    events: list[ImageEvent] = []
    if found:
        events.append(ImageEvent(index=index, vendor=carried_of(VENDOR, {"answer": restored(found)})))
    data = piece.get("data")
    for place, image in enumerate(data if isinstance(data, list) else ()):
        if isinstance(image, dict) and (beside := _beyond(image, _KNOWN_IMAGE)):
            events.append(ImageEvent(index=place, vendor=carried_of(VENDOR, {"image": restored(beside)})))
    return events


def restoring(take: Callable[[str], bytes | None]) -> Callable[[Any], Any]:
    """Return what puts base64 that was lifted out of an answer back where its name stands."""

    def restored(value: Any) -> Any:
        if isinstance(value, str):
            blob = take(value)
            return value if blob is None else b64encode(blob).decode()
        if isinstance(value, dict):
            return {name: restored(inner) for name, inner in value.items()}
        return [restored(each) for each in value] if isinstance(value, list) else value

    return restored


def _counts_beyond(usage: Json) -> Json:
    """Return the counts that no contract types."""
    found = _beyond(usage, _KNOWN_USAGE)
    for name in _DETAILS:
        if isinstance(found.get(name), dict):
            found[name] = _beyond(found[name], _KNOWN_DETAILS)
            if not found[name]:
                del found[name]
    return found


def _beyond(piece: Mapping[str, Any], known: frozenset[str]) -> Json:
    return {name: value for name, value in piece.items() if name not in known and value is not None}
