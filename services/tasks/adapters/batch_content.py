"""What is kept of a batch's requests and results, encrypted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.common import logs
from services.common.content_sealing import ContentSealer
from services.tasks.domain.batch import Claimed

_log = logs.get("tasks.batches")


class BatchContent:
    """Encrypts and opens requests and results of batches, in threads: a batch may have many.

    Args:
        sealer: What encrypts them.
    """

    def __init__(self, sealer: ContentSealer) -> None:
        self._sealer = sealer

    async def sealed_requests(self, batch_id: str, requests: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Return a batch's requests as they are kept, in their order."""

        def sealed() -> list[tuple[str, bytes]]:
            return [
                (custom_id, self._sealer.seal(_request(batch_id, place), params))
                for place, (custom_id, params) in enumerate(requests)
            ]

        return await asyncio.to_thread(sealed)

    async def sealed_result(self, claimed: Claimed, result: bytes) -> bytes:
        """Return a request's result as it is kept."""
        if not claimed.sealed:
            return result
        return await asyncio.to_thread(self._sealer.seal, _result(claimed.batch_id, claimed.place), result)

    async def request(self, claimed: Claimed) -> bytes | None:
        """Return a request's body; None where no key opens it."""
        if not claimed.sealed:
            return claimed.params
        plain = await asyncio.to_thread(self._sealer.open, _request(claimed.batch_id, claimed.place), claimed.params)
        if plain is None:
            _log.error("batches.unreadable", batch=claimed.batch_id, place=claimed.place)
        return plain

    async def results(self, batch_id: str, found: Sequence[tuple[int, bytes | None]]) -> list[bytes | None]:
        """Return results by places; None for those that were kept as None, or that no key opens."""

        def opened() -> list[bytes | None]:
            return [
                None if sealed is None else self._sealer.open(_result(batch_id, place), sealed)
                for place, sealed in found
            ]

        return await asyncio.to_thread(opened)


def _request(batch_id: str, place: int) -> str:
    return f"{batch_id} {place} request"


def _result(batch_id: str, place: int) -> str:
    return f"{batch_id} {place} result"
