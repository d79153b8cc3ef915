"""Say what an uploaded image is, from its first bytes, before anything decodes it.

Reads container headers only (PNG, JPEG, GIF, WebP), so that a decompression bomb costs nothing: its size is refused
before a decoder sees it. The media type that a caller declares is ignored; the content decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from services.common.errors import InvalidField, TooLarge, UnsupportedMedia

MAX_BYTES = 10 * 1024 * 1024
"""Largest encoded image that is taken."""
MAX_SIDE = 4096
"""Largest width and height, in pixels."""

MIME = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}


_Reader = Callable[[bytes], "tuple[int, int] | None"]
"""Reads (width, height), or None from a header that is not one."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image's header says."""

    format: str
    """`png`, `jpeg`, `gif` or `webp`."""
    width: int
    height: int

    @property
    def mime_type(self) -> str:
        """The media type that the content has."""
        return MIME[self.format]


def inspect(data: bytes, *, param: str = "image") -> ImageInfo:
    """Tell format and size of an encoded image that a caller gives, from its headers alone.

    Raises:
        TooLarge: More than 10 MB.
        UnsupportedMedia: Not a PNG, JPEG, GIF or WebP, or its header is broken.
        InvalidField: No pixel at all, or a side of more than 4096.
    """
    if len(data) > MAX_BYTES:
        raise TooLarge(f"an image may have at most {MAX_BYTES >> 20} MB", param=param)
    info = describe(data, param=param)
    if info.width < 1 or info.height < 1:
        raise InvalidField("the image has no pixels", param=param)
    if info.width > MAX_SIDE or info.height > MAX_SIDE:
        raise InvalidField(
            f"the image is {info.width}x{info.height}; at most {MAX_SIDE}x{MAX_SIDE} pixels are taken", param=param
        )
    return info


def describe(data: bytes, *, param: str = "image") -> ImageInfo:
    """Tell format and size of any encoded image, however large. Raises UnsupportedMedia as `inspect` does."""
    name, reader = _kind(data, param)
    try:
        size = reader(data)
    except (struct.error, IndexError):
        size = None
    if size is None:
        raise UnsupportedMedia(f"the {name.upper()} image's header is broken", param=param)
    return ImageInfo(name, *size)


async def digest(data: bytes) -> str:
    """Return the SHA-256 of an image's file, in hexadecimal: hashed in a thread, for ten megabytes take 47 ms."""
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


def _kind(data: bytes, param: str) -> tuple[str, _Reader]:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png", _png
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg", _jpeg
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif", _gif
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp", _webp
    raise UnsupportedMedia("not an image that is taken: PNG, JPEG, GIF or WebP", param=param)


def _png(data: bytes) -> tuple[int, int] | None:
    """PNG 1.2, 4.1.1: IHDR is the first chunk and 13 bytes long."""
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    return (width, height) if length == 13 and kind == b"IHDR" else None


_GIF_EXTENSIONS = 64
_GIF_BLOCKS = 1_000
"""How many extensions may stand before a GIF's first frame, and blocks in one; a walk through more costs time."""


def _gif(data: bytes) -> tuple[int, int] | None:
    """GIF89a, 18 and 20: the logical screen, widened by the first frame where that lies outside it."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + ((3 << ((flags & 7) + 1)) if flags & 0x80 else 0)
    for _ in range(_GIF_EXTENSIONS):
        if data[at] == 0x2C:
            left, top, w, h = struct.unpack_from("<HHHH", data, at + 1)
            return max(width, left + w), max(height, top + h)
        if data[at] != 0x21:
            return None
        at += 2
        steps = 0
        while data[at] and steps < _GIF_BLOCKS:
            at += data[at] + 1
            steps += 1
        at += 1
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    """RFC 9649: a lossy (VP8), lossless (VP8L) or extended (VP8X) first chunk."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """ITU T.81, B.1.1: walk the marker segments to the frame header (SOFn)."""
    at = 2
    while True:
        if data[at] != 0xFF:
            return None
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _STANDALONE:
            continue
        if marker in (0xD9, 0xDA):  # the end, or pixels, before any frame header
            return None
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            return None
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        at += length
