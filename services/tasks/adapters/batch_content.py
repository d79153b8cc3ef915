"""What is kept of a batch's requests and results, encrypted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.common import logs
from services.common.content_sealing import ContentSealer

_log = logs.get("tasks.batches")

Placed = tuple[int, bytes | None]


class BatchContent:
    """Encrypts and opens requests and results of batches, in threads: a batch may have many.

    Args:
        sealer: What encrypts them.
    """

    def __init__(self, sealer: ContentSealer) -> None:
        self._sealer = sealer

    async def sealed_requests(self, batch_id: str, requests: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Return a batch's requests as they are kept, in their order."""
        placed = [(place, params) for place, (_, params) in enumerate(requests)]
        sealed = await self._sealed(batch_id, "request", placed)
        return [(custom_id, params) for (custom_id, _), params in zip(requests, sealed, strict=True)]

    async def requests(self, batch_id: str, found: Sequence[Placed]) -> list[bytes | None]:
        """Return bodies of requests by places; None for those that no key opens."""
        return await self._opened(batch_id, "request", found)

    async def sealed_result(self, batch_id: str, place: int, result: bytes) -> bytes:
        """Return a request's result as it is kept."""
        return (await self._sealed(batch_id, "result", [(place, result)]))[0]

    async def results(self, batch_id: str, found: Sequence[Placed]) -> list[bytes | None]:
        """Return results by places; None for those that were kept as None, or that no key opens."""
        return await self._opened(batch_id, "result", found)

    async def sealed_handed(self, batch_id: str, handed: Sequence[tuple[int, bytes]]) -> list[bytes]:
        """Return what is kept of how requests are handed over to a provider."""
        return await self._sealed(batch_id, "handed", handed)

    async def handed(self, batch_id: str, found: Sequence[Placed]) -> list[bytes | None]:
        """Return that by places, as `requests`."""
        return await self._opened(batch_id, "handed", found)

    async def _sealed(self, batch_id: str, kind: str, plain: Sequence[tuple[int, bytes]]) -> list[bytes]:
        def sealed() -> list[bytes]:
            return [self._sealer.seal(f"{batch_id} {place} {kind}", each) for place, each in plain]

        return await asyncio.to_thread(sealed)

    async def _opened(self, batch_id: str, kind: str, found: Sequence[Placed]) -> list[bytes | None]:
        def opened() -> list[bytes | None]:
            return [each and self._sealer.open(f"{batch_id} {place} {kind}", each) for place, each in found]

        results = await asyncio.to_thread(opened)
        for (place, sealed), plain in zip(found, results, strict=True):
            if sealed and plain is None:
                _log.error("batches.unreadable", batch=batch_id, place=place, what=kind)
        return results
