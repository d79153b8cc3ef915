"""Pictures on their way from a provider to the caller, each held once.

In a message a picture is copied when the message is made, when it is put into another, and when that is written. Here
its bytes stay beside the event that they belong to until the response is written, by hand, around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import Descriptor

from moa.common.v1.media_pb2 import ImageData
from moa.image.v1.image_pb2 import Image, ImageEvent, Progress
from moa.image.v1.image_service_pb2 import GenerateImageResponse

_LENGTH_DELIMITED: Final = 2


@dataclass(slots=True)
class Picture:
    """An event whose picture is not in it: an `image`, or a `progress` with a preview."""

    event: ImageEvent
    """The event, with everything but the bytes of its picture."""
    data: bytes
    """Those."""


def encoded(event: ImageEvent | Picture) -> bytes:
    """Return a serialized `GenerateImageResponse` with one event, once: a picture's bytes are taken out of it."""
    if isinstance(event, ImageEvent):
        return GenerateImageResponse(events=[event]).SerializeToString()
    data, event.data = event.data, b""
    rest: Image | Progress
    if event.event.HasField("image"):
        rest, place, inner = Image(), "image", "image"
        rest.CopyFrom(event.event.image)
        described = event.event.image.image
    else:
        rest, place, inner = Progress(), "progress", "preview"
        rest.CopyFrom(event.event.progress)
        described = event.event.progress.preview
    rest.ClearField(inner)  # type: ignore[arg-type]  # a field of the one that it is
    # From the inside out: each message is the header of the one within, and then what else it has.
    index = ImageEvent(index=event.event.index)
    if event.event.HasField("candidate"):
        index.candidate = event.event.candidate
    tails = [described.SerializeToString(), rest.SerializeToString(), index.SerializeToString()]
    heads = [_head(ImageData.DESCRIPTOR, "data", len(data))]
    size = len(heads[0]) + len(data) + len(tails[0])
    for descriptor, name, tail in (
        (rest.DESCRIPTOR, inner, tails[1]),
        (ImageEvent.DESCRIPTOR, place, tails[2]),
        (GenerateImageResponse.DESCRIPTOR, "events", b""),
    ):
        heads.insert(0, _head(descriptor, name, size))
        size += len(heads[0]) + len(tail)
    return b"".join([*heads, data, *tails])


def _head(descriptor: Descriptor, name: str, size: int) -> bytes:
    """Return the tag and length that stand before a field of `size` bytes."""
    return _varint(descriptor.fields_by_name[name].number << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
