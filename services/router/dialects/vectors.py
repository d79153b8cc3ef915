"""Vectors as JSON, in pieces: all of a large answer at once would hold the loop for a second."""

from __future__ import annotations

import array
import asyncio
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from moa.embedding.v1.embedding_service_pb2 import Embedding
from services.router.dialects.reply import encode

AT_ONCE: Final = 32
"""Vectors of one piece."""


async def pieces(
    head: bytes, embeddings: Sequence[Embedding], item: Callable[[int, Embedding], Any], tail: bytes
) -> AsyncIterator[bytes]:
    """Yield a JSON text: `head`, what `item` makes of each vector and its index, parted by commas, and `tail`."""
    out = head
    for start in range(0, len(embeddings), AT_ONCE):
        batch = embeddings[start : start + AT_ONCE]
        made = [encode(item(start + place, each)) for place, each in enumerate(batch)]
        yield out + b",".join(made)
        out = b","
        await asyncio.sleep(0)
    yield tail


def packed(embedding: Embedding) -> str:
    """Return a vector's numbers as little-endian floats of 32 bits, in base64."""
    numbers = array.array("f", embedding.values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers).decode()
