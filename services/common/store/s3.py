"""Objects in an S3 bucket, or one of anything that speaks its protocol."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from urllib3.exceptions import HTTPError

from services.common import logs, scrub
from services.common.errors import MoaError, NotFound, StorageFailed
from services.common.store.failing import failed
from services.common.store.model import CHUNK_BYTES, ObjectInfo, Opened
from services.common.store.names import check_name, is_name

_log = logs.get("store")

T = TypeVar("T")

PART_BYTES: Final = 8 * 1024 * 1024
"""How much of an upload is in memory; beyond one part it is a multipart upload. S3 takes at most 10,000 parts."""
THREADS: Final = 16
"""Transfers at once; botocore blocks, so each holds a thread."""

FAILURES: Final = (ClientError, BotoCoreError, HTTPClientError, HTTPError, OSError)
"""What a client raises."""

_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class _Body(Protocol):
    def read(self, amt: int) -> bytes: ...


class S3Store:
    """A store in a bucket that exists. Credentials come from the places where botocore looks (`AWS_ACCESS_KEY_ID`, …).

    Args:
        endpoint: The base URL of a compatible server; empty: Amazon's.
        region: Empty: what its configuration says.
    """

    def __init__(self, bucket: str, *, endpoint: str = "", region: str = "") -> None:
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self._client = client_of(endpoint, region)

    async def _call(self, operation: Callable[..., T], **given: Any) -> T:
        """Run a blocking call in a thread. Raises NotFound or StorageFailed."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(operation, **given))
        except FAILURES as error:
            raise translated(error) from error

    async def put(
        self,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Store an object; see `Store.put`."""
        if not is_name(name):
            raise ValueError(f"not an object's name: {name!r}")
        place = {"Bucket": self._bucket, "Key": name}
        about = {"ContentType": content_type, "Metadata": dict(metadata or {})}
        parts = _parts(data)
        first = await anext(parts, b"")
        if len(first) < PART_BYTES:
            await self._call(self._client.put_object, **place, **about, Body=first)
        else:
            await self._put_parts(place, about, first, parts)
        return await self.head(name)

    async def _put_parts(
        self, place: dict[str, str], about: dict[str, Any], first: bytes, rest: AsyncIterator[bytes]
    ) -> None:
        begun = await self._call(self._client.create_multipart_upload, **place, **about)
        upload = {**place, "UploadId": begun["UploadId"]}
        done: list[dict[str, Any]] = []

        async def send(part: bytes) -> None:
            number = len(done) + 1
            sent = await self._call(self._client.upload_part, **upload, PartNumber=number, Body=part)
            done.append({"PartNumber": number, "ETag": sent["ETag"]})

        try:
            await send(first)
            del first
            async for part in rest:
                await send(part)
            await self._call(self._client.complete_multipart_upload, **upload, MultipartUpload={"Parts": done})
        except BaseException:
            # Not awaited: this runs on cancellation too. What stays behind is a bill for parts nobody can read.
            self._threads.submit(_quietly, partial(self._client.abort_multipart_upload, **upload))
            raise

    async def head(self, name: str) -> ObjectInfo:
        """Describe an object; see `Store.head`."""
        check_name(name)
        result = await self._call(self._client.head_object, Bucket=self._bucket, Key=name)
        return _info(name, result, int(result["ContentLength"]))

    @asynccontextmanager
    async def open(self, name: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[Opened]:
        """Read an object or a range of it; see `Store.open`."""
        info = await self.head(name)
        first = min(max(0, start), info.size_bytes)
        after = info.size_bytes if stop is None else min(max(first, stop), info.size_bytes)
        if first == after:
            yield Opened(info, first, after, _nothing())
            return
        result = await self._call(
            self._client.get_object,
            Bucket=self._bucket,
            Key=name,
            Range=f"bytes={first}-{after - 1}",
            # The range was computed for the object that `head` described.
            IfMatch=info.etag,
        )
        body = result["Body"]
        try:
            yield Opened(info, first, after, self._chunks(body, after - first))
        finally:
            body.close()

    async def _chunks(self, body: _Body, size: int) -> AsyncIterator[bytes]:
        left = size
        while left:
            chunk: bytes = await self._call(body.read, amt=min(CHUNK_BYTES, left))
            if not chunk:
                raise StorageFailed("the stored object is incomplete")
            left -= len(chunk)
            yield chunk

    async def delete(self, name: str) -> None:
        """Remove an object; see `Store.delete`."""
        check_name(name)
        await self._call(self._client.delete_object, Bucket=self._bucket, Key=name)

    async def aclose(self) -> None:
        """Let go of connections and threads."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        self._client.close()


def client_of(endpoint: str, region: str, credential: tuple[str, str] | None = None) -> Any:
    """Return a client of an S3 server; the scrubber knows its credentials.

    Args:
        endpoint, region: As `S3Store`'s.
        credential: An id and a secret; None: they come from the places where botocore looks.
    """
    session = botocore.session.get_session()
    # Its own list of authorities is what it has by default: as everything else here does, it goes by `SSL_CERT_FILE`.
    authorities = session.get_config_variable("ca_bundle") or ssl.get_default_verify_paths().cafile
    if credential is not None:
        session.set_credentials(*credential)
    client = session.create_client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region or None,
        verify=authorities,
        config=Config(
            # Compatible servers mostly have no name of their own for each bucket.
            s3={"addressing_style": "path" if endpoint else "auto"},
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=THREADS,
            # Trailing checksums are refused by several compatible servers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    credentials = session.get_credentials()  # those of the client: found once
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        scrub.renewed("s3", *filter(None, (frozen.access_key, frozen.secret_key, frozen.token)))
    return client


def _info(name: str, head: Mapping[str, Any], size: int) -> ObjectInfo:
    return ObjectInfo(
        name=name,
        size_bytes=size,
        content_type=head.get("ContentType") or "application/octet-stream",
        etag=head["ETag"],
        modified=head["LastModified"].astimezone(UTC),
        metadata=head.get("Metadata") or {},
    )


async def _nothing() -> AsyncIterator[bytes]:
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


async def _parts(data: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return `data` in parts of `PART_BYTES`; the last may be shorter."""
    if isinstance(data, bytes):
        for at in range(0, len(data), PART_BYTES):
            yield data[at : at + PART_BYTES]
        return
    gathered = bytearray()
    async for chunk in data:
        gathered += chunk
        while len(gathered) >= PART_BYTES:
            yield bytes(gathered[:PART_BYTES])
            del gathered[:PART_BYTES]
    if gathered:
        yield bytes(gathered)


def translated(error: Exception) -> MoaError:
    """Return what a failure of the client is to callers."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if code in _ABSENT:
        return NotFound("no such object")
    return failed(getattr(error, "operation_name", ""), code or type(error).__name__)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except (ClientError, BotoCoreError) as error:
        _log.warning("store.abort_failed", why=type(error).__name__)
