"""Masks and canvases, turned into the form that each provider wants. Sizes were checked before anything is decoded."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, UnidentifiedImageError

from services.common.errors import InvalidField, UnsupportedMedia

_HALF: Final = 128


def _opened(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UnsupportedMedia("the image cannot be decoded", param=where) from error
    return image


def _painted(mask: bytes, size: tuple[int, int]) -> Image.Image:
    """Return the mask in one channel, 255 where is painted: where it is transparent, or white if it has no alpha."""
    image = _opened(mask, "mask")
    if image.size != size:
        raise InvalidField(f"the mask is {image.size[0]}x{image.size[1]}, the image {size[0]}x{size[1]}", param="mask")
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if min(alpha.tobytes()) < _HALF:
            return alpha.point(lambda a: 255 if a < _HALF else 0)
    return image.convert("L").point(lambda v: 255 if v >= _HALF else 0)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def white_painted(mask: bytes, image: bytes) -> bytes:
    """Return a black and white mask in which white is painted (Stability)."""
    return _png(_painted(mask, _opened(image, "images[0]").size))


def black_painted(mask: bytes, image: bytes) -> bytes:
    """Return a black and white mask in which black is painted (Nova Canvas, Ideogram)."""
    painted = _painted(mask, _opened(image, "images[0]").size)
    return _png(painted.point(lambda v: 255 - v).convert("RGB"))


def clear_painted(mask: bytes, image: bytes) -> bytes:
    """Return a mask in which transparent is painted (OpenAI)."""
    painted = _painted(mask, _opened(image, "images[0]").size)
    out = Image.new("RGBA", painted.size, (0, 0, 0, 255))
    out.putalpha(painted.point(lambda v: 255 - v))
    return _png(out)


def centred(data: bytes, size: tuple[int, int]) -> tuple[bytes, bytes]:
    """Put an image in the middle of a larger canvas. Give the canvas, and a mask that is white around the image.

    Raises InvalidField when the image does not fit.
    """
    image = _opened(data, "images[0]").convert("RGB")
    left, top = _margins(image.size, size)[:2]
    canvas = Image.new("RGB", size, (255, 255, 255))
    canvas.paste(image, (left, top))
    mask = Image.new("RGB", size, (255, 255, 255))
    mask.paste((0, 0, 0), (left, top, left + image.width, top + image.height))
    return _png(canvas), _png(mask)


def margins(data: bytes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return how many pixels are added left, top, right and bottom of an image that stands in the middle of `size`."""
    return _margins(_opened(data, "images[0]").size, size)


def _margins(inner: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int, int, int]:
    across, down = outer[0] - inner[0], outer[1] - inner[1]
    if across < 0 or down < 0 or (across == 0 and down == 0):
        raise InvalidField(f"width and height must be larger than the image ({inner[0]}x{inner[1]})", param="size")
    return across // 2, down // 2, across - across // 2, down - down // 2
