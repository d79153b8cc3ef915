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
    return await asyncio.to_thread(_encoded, image, wanted, quality)


def _encoded(image: media_pb2.ImageData, wanted: str, quality: int | None) -> media_pb2.ImageData:
    out = BytesIO()
    try:
        with Image.open(BytesIO(image.data)) as opened:
            opened.load()
            picture: Image.Image = opened
            if wanted == "jpeg" and picture.mode != "RGB":
                # What is transparent becomes white, not the black that lies beneath it.
                rgba = picture.convert("RGBA")
                picture = Image.new("RGB", rgba.size, "white")
                picture.paste(rgba, mask=rgba.getchannel("A"))
            given = {} if wanted == "png" else {"quality": DEFAULT_QUALITY if quality is None else quality}
            picture.save(out, wanted.upper(), **given)
            width, height = picture.size
    except (OSError, ValueError, SyntaxError):
        raise UpstreamBroken("the model's image could not be read") from None
    return media_pb2.ImageData(data=out.getvalue(), mime_type=f"image/{wanted}", width=width, height=height)
