"""An image on its way from whoever made it to the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from moa.image.v1 import image_pb2


@dataclass(slots=True)
class MadeImage:
    """An image as it was made, apart from the message that brought it: each reading of that makes a copy."""

    index: int
    data: bytes
    mime_type: str
    width: int
    height: int
    revised_prompt: str
    receipt: image_pb2.Receipt | None

    @classmethod
    def of(cls, index: int, made: image_pb2.Image) -> Self:
        """Take an image out of its message, which can be let go of then."""
        receipt = None
        if made.HasField("receipt"):
            # A copy: a part would keep its whole message in memory.
            receipt = image_pb2.Receipt()
            receipt.CopyFrom(made.receipt)
        image = made.image
        return cls(index, image.data, image.mime_type, image.width, image.height, made.revised_prompt, receipt)
