"""Images that callers give, checked and written as providers take them."""

from __future__ import annotations

from base64 import b64encode

from moa.common.v1.media_pb2 import ImageInput
from services.common import images
from services.common.errors import InvalidField, Unsupported


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
    return image.data, images.inspect(image.data, param=f"{where}.data").mime_type


def data_uri(data: bytes, mime: str) -> str:
    """Return `data:<mime>;base64,…`."""
    return f"data:{mime};base64,{b64encode(data).decode()}"
