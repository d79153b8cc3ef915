"""Images are judged by their headers."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import pytest
from PIL import Image

from services.common import errors
from services.common.images import ImageInfo, inspect


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


GOOD = [
    (encoded("PNG", (5, 7)), ImageInfo("png", 5, 7)),
    (encoded("JPEG", (30, 17)), ImageInfo("jpeg", 30, 17)),
    (encoded("JPEG", (30, 17), progressive=True), ImageInfo("jpeg", 30, 17)),
    (encoded("GIF", (12, 9)), ImageInfo("gif", 12, 9)),
    (encoded("GIF", (12, 9), comment=b"x" * 600), ImageInfo("gif", 12, 9)),
    (encoded("WEBP", (40, 41)), ImageInfo("webp", 40, 41)),
    (encoded("WEBP", (40, 41), lossless=True), ImageInfo("webp", 40, 41)),
    (encoded("WEBP", (40, 41), exif=b"Exif\x00\x00"), ImageInfo("webp", 40, 41)),
    (encoded("PNG", (4096, 1)), ImageInfo("png", 4096, 1)),
]

GIF_FRAME_FAR_OUT = b"GIF89a" + struct.pack("<HHBBBBHHHH", 5, 5, 0, 0, 0, 0x2C, 9000, 0, 5, 5)

BAD = [
    (b"", errors.UnsupportedMedia),
    (b"no image at all", errors.UnsupportedMedia),
    (b"\x89PNG\r\n\x1a\n", errors.UnsupportedMedia),
    (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, errors.UnsupportedMedia),
    (b"\xff\xd8\xff", errors.UnsupportedMedia),
    (b"\xff\xd8\xff\xe0\x00\x01", errors.UnsupportedMedia),
    (b"\xff\xd8\xff\xd9", errors.UnsupportedMedia),
    (b"GIF89a", errors.UnsupportedMedia),
    (b"GIF89a" + b"\x05\x00\x05\x00\x00\x00\x00" + b"\x21\xfe\x01x" * 400, errors.UnsupportedMedia),
    (b"RIFF\x00\x00\x00\x00WEBP", errors.UnsupportedMedia),
    (b"RIFF\x00\x00\x00\x00WEBPVP8 " + b"\x00" * 20, errors.UnsupportedMedia),
    (b"BM" + b"\x00" * 60, errors.UnsupportedMedia),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", errors.UnsupportedMedia),
    (png_header(5000, 10), errors.InvalidField),
    (png_header(10, 4097), errors.InvalidField),
    (png_header(0, 10), errors.InvalidField),
    (png_header(2**31, 2**31), errors.InvalidField),
    (
        b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + b"\x2c" + struct.pack("<HHHH", 9000, 0, 5, 5),
        errors.InvalidField,
    ),
    (encoded("PNG", (4, 4)) + b"\x00" * (10 << 20), errors.TooLarge),
]


@pytest.mark.parametrize(("data", "info"), GOOD)
def test_format_and_size_come_from_the_header(data: bytes, info: ImageInfo) -> None:
    """Every format that is taken is recognised by its content, with its size."""
    assert inspect(data) == info


@pytest.mark.parametrize(("data", "kind"), BAD)
def test_what_is_no_image_is_refused(data: bytes, kind: type[errors.MoaError]) -> None:
    """Broken, foreign, oversized and bomb-like files are refused with their reason, naming the field."""
    with pytest.raises(kind) as caught:
        inspect(data, param="images[0]")
    assert caught.value.param == "images[0]"


@pytest.mark.parametrize("data", [data for data, _ in GOOD])
def test_cut_short_it_never_fails_otherwise(data: bytes) -> None:
    """A header cut anywhere is refused or read, never an unknown exception."""
    for end in range(min(len(data), 700)):
        with contextlib.suppress(errors.UnsupportedMedia):
            inspect(data[:end])
