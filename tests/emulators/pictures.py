"""What emulators of image services share: pictures, scripts, forms, and the way to answer."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, web
from PIL import Image

from tests.emulators.script import Script


def encoded(image: Image.Image) -> bytes:
    """Write a picture as a PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def png(width: int = 16, height: int = 16, colour: str = "teal") -> bytes:
    """Make a PNG."""
    return encoded(Image.new("RGB", (width, height), colour))


@dataclass(kw_only=True)
class ImageScript(Script):
    """One answer of an image service."""

    image: bytes = field(default_factory=png)
    copies: int = 1
    """How many times a model that is asked for one image gives it."""
    text: tuple[str, ...] = ()
    filtered: bool = False
    """Whether the provider withholds the image for its content policy."""
    revised: str = ""
    """The prompt as the provider rewrote it."""


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    data: bytes
    mime: str
    name: str

    def opened(self) -> Image.Image:
        """Decode it."""
        return Image.open(io.BytesIO(self.data))


async def form_of(request: web.Request) -> dict[str, list[str | Upload]]:
    """Read a multipart form; fields may come several times."""
    found: dict[str, list[str | Upload]] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        assert part.name is not None
        if part.filename:
            value: str | Upload = Upload(bytes(await part.read()), part.headers.get("Content-Type", ""), part.filename)
        else:
            value = await part.text()
        found.setdefault(part.name, []).append(value)
    return found


def colours_of(mask: Upload | bytes) -> set[tuple[int, ...]]:
    """Return the colours that a mask has."""
    image = Image.open(io.BytesIO(mask)) if isinstance(mask, bytes) else mask.opened()
    found = image.convert("RGBA").getcolors(maxcolors=100_000)
    assert found is not None
    return {colour for _, colour in found if isinstance(colour, tuple)}
