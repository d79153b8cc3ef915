"""Between encoded images and pixels. Runs in worker threads; input is not trusted."""

from __future__ import annotations

import hashlib
import io
import threading
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageOps

from services.common import images
from services.common.errors import UnsupportedMedia

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # NumPy comes with the first model: 6 MB, and a tenth of a second of each start.
    Pixels = NDArray[np.uint8]
    """(height, width, 3), RGB."""

Image.MAX_IMAGE_PIXELS = images.MAX_SIDE * images.MAX_SIDE

# Pillow finds its plugins on first use, and not safely from two threads.
_OPENING = threading.Lock()


def opened(data: bytes, param: str) -> Image.Image:
    """Decode an untrusted image, upright, first frame only.

    Raises what `images.inspect` raises, and UnsupportedMedia when the pixels are broken.
    """
    info = images.inspect(data, param=param)
    try:
        with _OPENING:
            image = Image.open(io.BytesIO(data), formats=[info.format])
        if image.width > images.MAX_SIDE or image.height > images.MAX_SIDE:
            raise UnsupportedMedia("the image's headers contradict each other", param=param)
        image.load()
        upright = ImageOps.exif_transpose(image)
    except UnsupportedMedia:
        raise
    except Exception:  # decoders fail in many ways on broken files; none of them is ours
        raise UnsupportedMedia("the image is broken", param=param) from None
    return upright if upright is not None else image


def rgb(data: bytes, param: str) -> Image.Image:
    """Decode an untrusted image as RGB, on white where it is transparent. Raises as `opened` does."""
    image = opened(data, param)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class InputImages(NamedTuple):
    """The decoded images of a request."""

    image: Image.Image | None = None
    mask: Image.Image | None = None


def sources(image: bytes | None, given_mask: bytes | None, width: int, height: int) -> InputImages:
    """Decode a request's images. Raises as `opened` does."""
    return InputImages(
        None if image is None else source(image, width, height),
        None if given_mask is None else mask(given_mask, width, height),
    )


def source(data: bytes, width: int, height: int) -> Image.Image:
    """Decode an image to change: RGB, on white where it is transparent, at the size that is made."""
    return rgb(data, "images[0]").resize((width, height), Image.Resampling.LANCZOS)


def mask(data: bytes, width: int, height: int) -> Image.Image:
    """Decode a mask: white is painted over. In an image with transparency, the transparent part is."""
    image = opened(data, "mask")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # A canvas of a browser writes an alpha channel always: one that is opaque all over says nothing.
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.histogram()[255] < alpha.width * alpha.height:
            image = ImageOps.invert(alpha)
    return image.convert("L").resize((width, height), Image.Resampling.NEAREST)


def encoded(pixels: Pixels, kind: str) -> bytes:
    """Encode pixels as `png`, `jpeg` or `webp`. Same pixels, same bytes."""
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    if kind == "jpeg":
        image.save(out, "JPEG", quality=92)
    elif kind == "webp":
        image.save(out, "WEBP", quality=90, method=4)
    else:
        image.save(out, "PNG", compress_level=4)
    return out.getvalue()


def thumbnail(pixels: Pixels, width: int, height: int) -> bytes:
    """Encode a preview: a small picture blown up to (width, height), as JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR).save(out, "JPEG", quality=70)
    return out.getvalue()


def sha256(data: bytes) -> str:
    """Return the digest that a receipt carries."""
    return hashlib.sha256(data).hexdigest()
