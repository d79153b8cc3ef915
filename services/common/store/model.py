"""What a store does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

CHUNK_BYTES = 256 * 1024
"""How much of an object is in memory at a time while it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What is known of an object without reading it."""

    name: str
    size_bytes: int
    content_type: str
    etag: str
    """Changes when the content does; quoted, as HTTP writes it."""
    modified: datetime
    """When it was stored; in UTC."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What its writer noted; keys in lower case."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An object, or a range of it, that is being read."""

    info: ObjectInfo
    start: int
    """The first byte that is read."""
    stop: int
    """The byte after the last that is read."""
    chunks: AsyncIterator[bytes]
    """The bytes, at most `CHUNK_BYTES` at a time."""


class Store(Protocol):
    """Holds objects by name. Everything that fails, but for a name that is not there, raises StorageFailed."""

    async def put(
        self,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Store an object. It is there as a whole or not at all; an earlier one of the name is replaced.

        An iterator is written as it comes, with a part of it in memory. What it raises comes through, and nothing
        is stored. Raises ValueError for a name that `names.is_name` refuses.
        """

    async def head(self, name: str) -> ObjectInfo:
        """Describe an object. Raises NotFound."""

    def open(self, name: str, *, start: int = 0, stop: int | None = None) -> AbstractAsyncContextManager[Opened]:
        """Read bytes `start` to `stop` (not included; None: the end). Raises NotFound.

        Bounds past the end are brought back to it.
        """

    async def delete(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""

    async def aclose(self) -> None:
        """Let go of connections and threads."""
