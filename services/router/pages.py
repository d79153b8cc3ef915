"""moa.router.v1.PagesService: the files of web pages, whole, compressed where the browser takes that, or unchanged."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from google.api import httpbody_pb2

from moa.router.v1 import pages_service_pb2 as pb
from moa.router.v1 import pages_service_pb2_grpc
from services.common.errors import NotFound
from services.common.pages import Page, pages
from services.router.dialects.reply import STATUS_KEY
from services.router.files import LENGTH_KEY

_PIECE_BYTES: Final = 64 * 1024
"""Written at once: who reads slowly holds this much here, not a file."""
_WORTH_BYTES: Final = 1024
_GZIP: Final = re.compile(r"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[0-9.]+\s*)?(?=,|$)", re.ASCII)


class _Content(NamedTuple):
    stamp: tuple[int, int]
    data: bytes
    gzipped: bytes
    """Empty where it is not worth it."""
    digest: str


class PagesServicer(pages_service_pb2_grpc.PagesServiceServicer):
    """Answers browsers. A file is read when it is first asked for, and again when it was changed.

    Args:
        known: The pages by path.
    """

    def __init__(self, known: Mapping[str, Page] | None = None) -> None:
        self._pages = pages() if known is None else known
        self._read: dict[str, _Content] = {}

    async def GetPage(self, request: pb.GetPageRequest, context: Any) -> None:  # type: ignore[override]
        """Read a file, or tell that the browser's own copy is as it is."""
        page = self._pages.get(f"/{request.path}")
        if page is None:
            raise NotFound("no such path")
        content = await self._content(page)
        asked = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        compressed = bool(content.gzipped) and _GZIP.search(asked.get("accept-encoding", "")) is not None
        tag = f'"{content.digest}{"-gzip" if compressed else ""}"'
        headers = {**page.headers, "etag": tag}
        if content.gzipped:
            headers["vary"] = "accept-encoding"
        if tag in (each.strip().removeprefix("W/") for each in asked.get("if-none-match", "").split(",")):
            await context.send_initial_metadata([(STATUS_KEY, "304"), *headers.items()])
            return
        data = content.gzipped if compressed else content.data
        headers[LENGTH_KEY] = str(len(data))
        if compressed:
            headers["content-encoding"] = "gzip"
        if asked.get("x-envoy-original-method") == "HEAD":
            data = b""
        await context.send_initial_metadata([(STATUS_KEY, "200"), *headers.items()])
        for start in range(0, max(1, len(data)), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            await context.write(httpbody_pb2.HttpBody(content_type=page.content_type, data=piece))

    async def _content(self, page: Page) -> _Content:
        result = self._read.get(page.path)
        try:
            stat = page.file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if result is None or result.stamp != stamp:
                result = self._read[page.path] = await asyncio.to_thread(_loaded, page, stamp)
        except OSError:
            raise NotFound("no such path") from None
        return result


def _loaded(page: Page, stamp: tuple[int, int]) -> _Content:
    data = page.file.read_bytes()
    gzipped = gzip.compress(data, mtime=0) if page.shrinks and len(data) >= _WORTH_BYTES else b""
    digest = hashlib.sha256(data).hexdigest()[:32]
    return _Content(stamp, data, gzipped if len(gzipped) < len(data) else b"", digest)
