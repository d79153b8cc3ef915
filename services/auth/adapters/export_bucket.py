"""The bucket that logged requests are exported to."""

from __future__ import annotations

import asyncio
from functools import partial

from services.common.store.s3 import FAILURES, client_of, translated


class ExportBucket:
    """Puts objects into a bucket that exists.

    Args:
        endpoint: The base URL of a compatible server; empty: Amazon's.
        region: Empty: what its configuration says.
        credential: The id and the secret of what may write; None: as botocore finds it.
    """

    def __init__(
        self, bucket: str, *, endpoint: str = "", region: str = "", credential: tuple[str, str] | None = None
    ) -> None:
        self._bucket = bucket
        self._client = client_of(endpoint, region, credential)

    async def put(self, name: str, data: bytes, *, content_type: str) -> None:
        """Store an object, in the place of one of this name. Raises StorageFailed."""
        put = partial(self._client.put_object, Bucket=self._bucket, Key=name, Body=data, ContentType=content_type)
        try:
            await asyncio.to_thread(put)
        except FAILURES as error:
            raise translated(error) from error

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()
