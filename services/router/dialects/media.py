"""Images inside JSON: raw base64, `data:` URIs, or links that are fetched later."""

from __future__ import annotations

import binascii

from moa.common.v1 import media_pb2
from services.common import images
from services.common.errors import InvalidField

# Both alphabets are taken (Google's clients write the one for URLs), and line breaks inside. Bytes, for a picture's
# millions of letters: `str.translate` takes ten times as long.
_STANDARD = bytes.maketrans(b"-_", b"+/")
_BREAKS = b" \t\r\n"

MAX_URL = 8192


def image_from_text(text: str, *, param: str) -> media_pb2.ImageInput:
    """Return the image of raw base64, a `data:` URI or an http(s) link.

    The media type that a `data:` URI declares is ignored: the content decides. A link is kept as it is, to be
    fetched once its caller is known (`domain.inputs`). Raises InvalidField, UnsupportedMedia or TooLarge, each naming
    `param`.
    """
    if text[:8].lower().startswith(("http://", "https://")):
        return image_from_url(text, param=param)
    encoded = text
    if text.startswith("data:"):
        head, comma, encoded = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise InvalidField(f"{param}: a data: URI must carry base64", param=param)
    return image_from_base64(encoded, param=param)


def image_from_base64(encoded: str, *, param: str) -> media_pb2.ImageInput:
    """Decode base64 to an image whose kind and size are allowed. Raises as `image_from_text`."""
    try:
        data = _decoded(encoded)
    except ValueError:
        raise InvalidField(f"{param}: not valid base64", param=param) from None
    info = images.inspect(data, param=param)
    return media_pb2.ImageInput(data=data, mime_type=info.mime_type)


def image_from_url(url: str, *, param: str) -> media_pb2.ImageInput:
    """Return the image that a `data:` URI holds or a link names. Raises as `image_from_text`."""
    if url.startswith("data:"):
        return image_from_text(url, param=param)
    if not url[:8].lower().startswith(("http://", "https://")):
        raise InvalidField(f"{param}: an https link or a data: URI is expected", param=param)
    if len(url) > MAX_URL:
        raise InvalidField(f"{param}: the link is too long", param=param)
    return media_pb2.ImageInput(url=url)


def file_from_base64(encoded: str, mime_type: str, *, param: str, name: str = "") -> media_pb2.FileInput:
    """Return a file whose bytes are base64, or in a `data:` URI. Raises InvalidField."""
    if encoded.startswith("data:"):
        head, _, encoded = encoded.partition(",")
        mime_type = mime_type or head[5:].partition(";")[0]
    try:
        data = _decoded(encoded)
    except ValueError:
        raise InvalidField(f"{param}: not valid base64", param=param) from None
    if not data or not mime_type:
        raise InvalidField(f"{param}: a file needs bytes and a media type", param=param)
    return media_pb2.FileInput(data=data, mime_type=mime_type, name=name)


def _decoded(encoded: str) -> bytes:
    """Return what base64 says. Raises ValueError."""
    try:
        # Nearly all: it is read where it lies.
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        clean = encoded.encode("ascii").translate(_STANDARD, _BREAKS)
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4), strict_mode=True)


def file_from_url(url: str, mime_type: str, *, param: str) -> media_pb2.FileInput:
    """Return a file that its provider fetches. Raises InvalidField for what is no public link."""
    if not url[:8].lower().startswith("https://") or len(url) > MAX_URL:
        raise InvalidField(f"{param}: an https link is expected", param=param)
    return media_pb2.FileInput(url=url, mime_type=mime_type)
