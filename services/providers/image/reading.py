"""What readers of image answers have in common."""

from __future__ import annotations

import abc
import binascii
import contextlib
import io
from collections.abc import Sequence

import msgspec

from moa.common.v1.media_pb2 import ImageData
from moa.image.v1.image_pb2 import Image, ImageEvent, ImageText, Progress, Receipt
from services.common import errors, images
from services.common.estimate import ReportedUsage
from services.common.scrub import scrub
from services.providers.http.blobs import BlobLifter
from services.providers.http.client import MAX_ANSWER_BYTES
from services.providers.http.constants import without_constants
from services.providers.image.base import Link
from services.providers.image.picture import Picture

Out = ImageEvent | Picture | Link


def described(data: bytes) -> ImageData:
    """Describe an image file that a provider sent, without its bytes. Raises UpstreamBroken when it is none."""
    try:
        info = images.describe(data)
    except errors.MoaError as error:
        raise errors.UpstreamBroken("the provider sent data that is not an image") from error
    return ImageData(mime_type=info.mime_type, width=info.width, height=info.height)


def image_event(index: int, data: bytes, *, revised_prompt: str = "", seed: object = None) -> Picture:
    """Return the event of a finished image. A seed that is no number of 63 bits is left out.

    Its receipt has no digest yet: hashing is no work for a loop.
    """
    made = Image(image=described(data), revised_prompt=scrub(revised_prompt))
    if isinstance(seed, int) and 0 <= seed < 2**63:
        made.receipt.CopyFrom(Receipt(seed=seed))
    return Picture(ImageEvent(index=index, image=made), data)


def preview_event(index: int, step: int, steps: int, data: bytes) -> Picture:
    """Return the event of a picture that is not finished."""
    progress = Progress(step=step, steps=steps, preview=described(data))
    return Picture(ImageEvent(index=index, progress=progress), data)


def text_event(text: str) -> ImageEvent:
    """Return the event of text beside an image."""
    return ImageEvent(text=ImageText(text=text))


class WholeReader(abc.ABC):
    """Reads an answer that comes at once. Subclasses say what it means (`_take`).

    With `json` the images are taken out of the JSON while it arrives, and `_take` sees the rest.
    """

    def __init__(self, *, json: bool = True) -> None:
        self.failure: errors.MoaError | None = None
        self.reported: ReportedUsage | None = None
        self._lifter = BlobLifter() if json else None
        self._plain = io.BytesIO()

    @abc.abstractmethod
    def _take(self, data: bytes) -> Sequence[Out]:
        """Read the whole answer (without its blobs)."""

    def feed(self, data: bytes) -> list[Out]:
        """Keep a piece."""
        if self._lifter is None:
            self._plain.write(data)
            if self._plain.tell() > MAX_ANSWER_BYTES:
                self.failure = errors.UpstreamBroken("the provider's answer is too long")
            return []
        try:
            self._lifter.feed(data)
        except errors.MoaError as error:
            self.failure = error
        return []

    def end(self) -> list[Out]:
        """Return the events of the answer."""
        if self.failure is not None:
            return []
        data = bytes(self._lifter.skeleton) if self._lifter is not None else self._plain.getvalue()
        self._plain = io.BytesIO()
        try:
            return list(self._take(data))
        except errors.MoaError as error:
            self.failure = error
        except (msgspec.MsgspecError, ValueError) as error:
            # A count that is no number takes nothing from good images.
            if (mended := without_constants(data)) is not None:
                with contextlib.suppress(errors.MoaError, msgspec.MsgspecError, ValueError):
                    return list(self._take(mended))
            self.failure = errors.UpstreamBroken("the provider's answer could not be read")
            self.failure.__cause__ = error
        return []

    def _blob(self, text: str) -> bytes:
        """Return the bytes of a base64 string of the answer. Raises UpstreamBroken."""
        assert self._lifter is not None
        return blob_or_decoded(self._lifter, text)


def blob_or_decoded(lifter: BlobLifter, text: str) -> bytes:
    """Return a blob that was taken out, or decode a string that was too short for that. Raises UpstreamBroken."""
    result = lifter.take(text)
    return decoded(text) if result is None else result


def decoded(text: str) -> bytes:
    """Decode base64. Raises UpstreamBroken."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise errors.UpstreamBroken("the provider's image cannot be read") from None
