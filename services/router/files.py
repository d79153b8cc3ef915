"""Stored objects over REST: whole or in ranges, by signed link or the owner's key."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from google.api import httpbody_pb2

from moa.router.v1 import files_service_pb2, files_service_pb2_grpc
from services.common.errors import NotFound
from services.common.store import Links, ObjectInfo, Store
from services.common.store.names import is_name, owns
from services.router.dialects.reply import JSON, STATUS_KEY, encode
from services.router.serving import begin

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)

LENGTH_KEY = "x-moa-length"
"""Initial metadata: the answer's `content-length`, which gRPC's own framing would contradict on the way."""

_SAFE = {
    # What is stored comes from models and callers: a browser must not run it as a page of this origin.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "accept-ranges": "bytes",
}


class VerifiedKey(Protocol):
    """A verified key."""

    @property
    def account_id(self) -> str:
        """Whose key it is."""


class Admission(Protocol):
    """Who verifies keys."""

    async def arrive(self, key: str) -> VerifiedKey:
        """Verify a key, and count the request."""


class FilesServicer(files_service_pb2_grpc.FilesServiceServicer):
    """Answers `GET /files/{name}`."""

    def __init__(self, store: Store, links: Links, admission: Admission) -> None:
        self._store = store
        self._links = links
        self._admission = admission

    async def GetFile(self, request: files_service_pb2.GetFileRequest, context: Any) -> None:  # type: ignore[override]
        """Read an object or a range of it. A link that is wrong or over 403; nothing of the name 404."""
        caller = begin(context)
        if not is_name(request.name):
            raise NotFound("no such file")
        if request.signature or not caller.key:
            self._links.check(request.name, expires=request.expires, signature=request.signature)
            expires = int(request.expires)
        else:
            verified_key = await self._admission.arrive(caller.key)
            if not owns(verified_key.account_id, request.name):
                raise NotFound("no such file")
            expires = 0
        asked = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        info = await self._store.head(request.name)
        common = {**_SAFE, "etag": info.etag, "cache-control": _cache_control(expires)}
        common["last-modified"] = info.modified.strftime("%a, %d %b %Y %H:%M:%S GMT")
        if asked.get("if-none-match") in (info.etag, "*"):
            await _begin(context, 304, common)
            return
        span = _span(asked, info)
        if span is None:
            await _refuse_range(context, common, info)
            return
        start, stop = span
        partial = stop - start != info.size_bytes
        if partial:
            common["content-range"] = f"bytes {start}-{stop - 1}/{info.size_bytes}"
        common[LENGTH_KEY] = str(stop - start)
        if asked.get("x-envoy-original-method") == "HEAD":
            common["content-type"] = info.content_type
            await _begin(context, 206 if partial else 200, common)
            return
        async with self._store.open(request.name, start=start, stop=stop) as opened:
            await _begin(context, 206 if partial else 200, common)
            if start == stop:
                await context.write(httpbody_pb2.HttpBody(content_type=info.content_type))
            async for chunk in opened.chunks:
                await context.write(httpbody_pb2.HttpBody(content_type=info.content_type, data=chunk))


def _cache_control(expires: int) -> str:
    """Whoever has a link, a shared cache too, may keep the object as long as the link lasts; it never changes."""
    return f"public, max-age={max(0, expires - int(time.time()))}, immutable" if expires else "private, no-cache"


async def _begin(context: Any, status: int, headers: Mapping[str, str]) -> None:
    await context.send_initial_metadata([(STATUS_KEY, str(status)), *headers.items()])


def _span(asked: Mapping[str, str], info: ObjectInfo) -> tuple[int, int] | None:
    """Return the bytes that are asked for, the last not included; None for a range that cannot be met.

    RFC 9110, 14.1.2 and 14.2: several ranges, other units, and a range under an `If-Range` that no longer holds are
    answered by the whole.
    """
    match = _RANGE.fullmatch(asked.get("range", "").replace(" ", ""))
    if not match or not (match[1] or match[2]) or asked.get("if-range", info.etag) != info.etag:
        return 0, info.size_bytes
    if not match[1]:
        start, stop = max(0, info.size_bytes - int(match[2])), info.size_bytes
    else:
        start = int(match[1])
        stop = min(int(match[2]) + 1, info.size_bytes) if match[2] else info.size_bytes
        if match[2] and int(match[2]) < start:
            return 0, info.size_bytes
    return (start, stop) if start < stop else None


async def _refuse_range(context: Any, headers: dict[str, str], info: ObjectInfo) -> None:
    body = encode({"detail": f"the file has {info.size_bytes} bytes", "code": "range_not_satisfiable"})
    headers["content-range"] = f"bytes */{info.size_bytes}"
    headers[LENGTH_KEY] = str(len(body))
    await _begin(context, 416, headers)
    await context.write(httpbody_pb2.HttpBody(content_type=JSON, data=body))
