"""Return an image in the file format that a caller asked for, where its model gave another."""

from __future__ import annotations

import asyncio
from io import BytesIO

from PIL import Image

from moa.common.v1 import media_pb2
from services.common.errors import UpstreamBroken

DEFAULT_QUALITY = 95
"""Of JPEG and WebP, when no compression was asked for."""


async def as_format(image: media_pb2.ImageData, wanted: str, *, quality: int | None = None) -> media_pb2.ImageData:
    """Return `image` as `wanted` (`png`, `jpeg`, `webp`; empty: as it is). Raises UpstreamBroken for a broken one.

    A file of the right kind is passed on untouched, unless a quality (0 to 100) is asked for. Runs in a thread.
    """
    if not wanted or (image.mime_type == f"image/{wanted}" and quality is None):
        return image
    data, (width, height) = await asyncio.to_thread(converted, image.data, wanted, quality)
    return media_pb2.ImageData(data=data, mime_type=f"image/{wanted}", width=width, height=height)


def converted(data: bytes, wanted: str, quality: int | None = None) -> tuple[bytes, tuple[int, int]]:
    """Return an image file as one of another format, and its size. Raises UpstreamBroken for a broken one."""
    out = BytesIO()
    try:
        with Image.open(BytesIO(data)) as opened:
            opened.load()
            picture: Image.Image = opened
            if wanted == "jpeg" and picture.mode != "RGB":
                # What is transparent becomes white, not the black that lies beneath it.
                rgba = picture.convert("RGBA")
                picture = Image.new("RGB", rgba.size, "white")
                picture.paste(rgba, mask=rgba.getchannel("A"))
            elif picture.mode == "CMYK":
                picture = picture.convert("RGB")
            given = {} if wanted == "png" else {"quality": DEFAULT_QUALITY if quality is None else quality}
            picture.save(out, wanted.upper(), **given)
            size = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UpstreamBroken("the model's image could not be read") from None
    return out.getvalue(), size
