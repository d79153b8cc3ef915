"""Images that callers give in JSON: links, or `data:` URIs."""

from __future__ import annotations

import binascii
from typing import Final

from moa.common.v1 import media_pb2
from services.common import images
from services.common.errors import InvalidField

MAX_URL: Final = 8192


def image_of(text: str, *, param: str) -> media_pb2.ImageInput:
    """Return the image that a link names (fetched when the task runs) or a `data:` URI holds.

    Raises InvalidField, UnsupportedMedia or TooLarge, each naming `param`.
    """
    if text.startswith("data:"):
        return media_pb2.ImageInput(data=bytes_of(text, param=param))
    if not text.lower().startswith(("https://", "http://")) or len(text) > MAX_URL:
        raise InvalidField(f"{param}: an https link or a data: URI is expected", param=param)
    return media_pb2.ImageInput(url=text)


def bytes_of(text: str, *, param: str) -> bytes:
    """Decode a `data:` URI to an image whose kind and size are allowed."""
    head, comma, encoded = text.partition(",")
    if not comma or not head.rstrip().lower().endswith(";base64"):
        raise InvalidField(f"{param}: a data: URI must carry base64", param=param)
    try:
        data = binascii.a2b_base64("".join(encoded.split()), strict_mode=True)
    except ValueError:
        raise InvalidField(f"{param}: not valid base64", param=param) from None
    images.inspect(data, param=param)
    return data
