"""Images that callers give, checked and written as providers take them."""

from __future__ import annotations

from base64 import b64encode

from moa.common.v1.media_pb2 import ImageInput
from services.common import images
from services.common.errors import InvalidField, Unsupported
from services.providers.http.woven import LARGE_BYTES, Weaving


def checked(image: ImageInput, where: str) -> tuple[bytes, str]:
    """Return the bytes of an image input and the media type that they have. `where` names the field for errors.

    Raises Unsupported for a link (who lets a provider fetch links does not come here), UnsupportedMedia for bytes
    that are no image.
    """
    kind = image.WhichOneof("source")
    if kind is None:
        raise InvalidField("an image needs data", param=where)
    if kind == "url":
        raise Unsupported("this provider takes images as data, not as links", param=f"{where}.url")
    data = image.data  # each look at it is a copy
    return data, images.inspect(data, param=f"{where}.data").mime_type


def uri_of(image: ImageInput, where: str, weaving: Weaving | None) -> str:
    """Return the `data:` URI of an image input, with a mark in place of a large one's base64. Raises as `checked`."""
    data, mime = checked(image, where)
    if weaving is None or len(data) < LARGE_BYTES:
        return data_uri(data, mime)
    return f"data:{mime};base64,{weaving.marked(len(data), lambda: image.data)}"


def data_uri(data: bytes, mime: str) -> str:
    """Return `data:<mime>;base64,…`."""
    return f"data:{mime};base64,{b64encode(data).decode()}"
