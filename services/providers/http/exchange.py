"""One request and its answer, over the connections and the parser of aiohttp.

aiohttp's session is for browsers' needs too: cookies, redirects, middlewares, a task for each body. Without it a
request takes a third of the calls. aiohttp has no public way to do without: what is used here of its insides
(`ResponseHandler` and its `_payload`, `set_response_params`, a connector's `connect` and `_factory`,
`_serialize_headers`) is as in the release that `CHECKED` names.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import StreamWriter, _serialize_headers
from multidict import CIMultiDict
from yarl import URL

from services.providers.http.woven import Woven

Body = bytes | memoryview | Woven
CHECKED: Final = "3.14"
"""The release of aiohttp (its first two numbers) whose insides were read. After an upgrade, compare these names with
what `ClientSession._request` and `ClientRequest.send` do, run tests/text, and set this."""
FAILURES: Final = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError)
"""What a request may fail with."""
_AT_ONCE_BYTES: Final = 64 * 1024
"""A body up to this size is written with its head; whether there is room for it nobody waits."""
_PIECE_BYTES: Final = 256 * 1024
"""A larger one is handed over in pieces of this size, so that it does not hold the loop."""
_BUFFER_BYTES: Final = 256 * 1024
"""So much of an answer may wait to be read."""
_ORIGINS: Final = 64
"""Most providers have one."""
_OWN_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would send of its own accord."""
_WITHOUT_BODY: Final = frozenset(("GET", "HEAD"))
"""Methods of which nobody expects a body."""


class Upload:
    """How far a request has come on its way to the provider. Made for one request; may be read after its failure."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False
        """Whether the provider may be at work: its headers and whole body were written, or a byte of the answer was
        read, and no refusal came (docs/charging.md)."""


class Lost(Exception):
    """The provider had closed a connection before it was used again: not one byte of an answer came."""


class _Protocol(ResponseHandler):
    """Tells whoever reads an answer that its framing is broken.

    aiohttp closes the connection at a chunk's size that is none, and lets the reader wait for more.
    """

    was_used = False
    """Whether it has carried a request."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the answer that was being read, where nothing else does."""
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError("the answer's framing is broken"))


class Exchange:
    """A request whose answer has begun. Whoever holds it calls `end`."""

    __slots__ = ("_connection", "_writing", "content", "headers", "status")

    def __init__(self, message: Any, content: aiohttp.StreamReader, connection: Connection, writing: Any) -> None:
        self.status: int = message.code
        self.headers: Mapping[str, str] = message.headers
        self.content = content
        self._connection = connection
        self._writing: asyncio.Task[None] | None = writing

    def end(self) -> None:
        """Close the connection now, unless the whole answer has come: then it is kept for the next request."""
        if self._writing is not None and not self._writing.done():
            self._writing.cancel()
        elif self.content.at_eof():
            self._connection.release()
            return
        self._connection.close()
        if not self.content.is_eof() and self.content.exception() is None:
            # Whoever still reads would wait for ever.
            self.content.set_exception(aiohttp.ClientConnectionError("the connection is closed"))


class Connections:
    """Connections to a provider.

    Args:
        connect_s: How long one may take to stand.
        proxy: The HTTP proxy between, if there is one.
        kept_s: How long they are kept for the next request; None: each carries one.
    """

    def __init__(self, *, connect_s: float, proxy: str | None, kept_s: float | None) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        self._connect_s = connect_s
        self._proxy = URL(proxy) if proxy else None
        self._is_kept = kept_s is not None
        how: dict[str, Any] = {"force_close": True} if kept_s is None else {"keepalive_timeout": kept_s}
        self._connector = aiohttp.TCPConnector(limit=0, **how)
        self._loop = asyncio.get_running_loop()
        factory = functools.partial(_Protocol, loop=self._loop)
        self._connector._factory = cast("functools.partial[ResponseHandler]", factory)
        self._origins: dict[tuple[str, str], aiohttp.ClientRequest] = {}
        """What aiohttp connects by, and the headers that say so."""

    async def ask(self, method: str, url: URL, body: Body, headers: Mapping[str, str], upload: Upload) -> Exchange:
        """Send a request; return when the answer's headers have come.

        Raises Lost where it may be sent again, and `FAILURES`.
        """
        origin = self._origins.get((url.scheme, url.raw_authority)) or self._origin(url)
        connecting = self._connector.connect(origin, [], self._timeout)
        if self._proxy is None:
            connection = await connecting
        else:
            # aiohttp bounds each step of a connection but what a proxy says to CONNECT.
            async with asyncio.timeout(self._connect_s):
                connection = await connecting
        protocol = cast(_Protocol, connection.protocol)
        was_used, protocol.was_used = protocol.was_used, True
        writing = None
        try:
            head = self._head(method, url, len(body), headers, origin)
            protocol.set_response_params(
                read_until_eof=True, auto_decompress=False, read_bufsize=_BUFFER_BYTES, skip_payload=method == "HEAD"
            )
            transport = protocol.transport
            if transport is None or (was_used and protocol.should_close):
                # It is over, or has an answer that nobody asked for.
                raise aiohttp.ServerDisconnectedError
            if len(body) <= _AT_ONCE_BYTES:
                upload.begun = True
                transport.write(b"".join((head, bytes(body) if isinstance(body, Woven) else body)))
            else:
                transport.write(head)
                # A provider may answer before it has read everything.
                writing = self._loop.create_task(_write(protocol, body, upload))
            while True:
                message, content = await protocol.read()
                if message.code >= 200 or message.code == 101:
                    return Exchange(message, content, connection, writing)
        except BaseException as error:
            if writing is not None:
                writing.cancel()
            connection.close()
            if was_used and isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
                raise Lost from error
            raise

    def _origin(self, url: URL) -> aiohttp.ClientRequest:
        """Return what is the same for all requests to a server. Raises aiohttp.InvalidURL."""
        if url.scheme not in ("http", "https"):
            raise aiohttp.InvalidURL(url)
        if len(self._origins) >= _ORIGINS:
            self._origins.clear()
        made = aiohttp.ClientRequest("GET", url, loop=self._loop, skip_auto_headers=_OWN_HEADERS, proxy=self._proxy)
        self._origins[url.scheme, url.raw_authority] = made
        return made

    def _head(
        self, method: str, url: URL, size: int, headers: Mapping[str, str], origin: aiohttp.ClientRequest
    ) -> bytes:
        """Return a request's line and headers. Raises ValueError for one that would be two."""
        # With the name and password of the address, and those of a proxy that reads requests.
        sent = CIMultiDict(origin.headers)
        sent.update(headers)
        if size or method not in _WITHOUT_BODY:
            sent[hdrs.CONTENT_LENGTH] = str(size)
        if not self._is_kept:
            sent[hdrs.CONNECTION] = "close"
        reads = self._proxy is not None and url.scheme == "http"
        path = str(url.with_user(None).with_fragment(None)) if reads else url.raw_path_qs
        return _serialize_headers(f"{method} {path} HTTP/1.1", sent)

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()


def _pieces_of(body: Body) -> Iterator[bytes | memoryview]:
    if isinstance(body, Woven):
        yield from body.pieces(_PIECE_BYTES)
        return
    for start in range(0, len(body), _PIECE_BYTES):
        yield memoryview(body)[start : start + _PIECE_BYTES]


async def _write(protocol: _Protocol, body: Body, upload: Upload) -> None:
    """Hand a large body to its connection, with room for each piece."""
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    # A connection that is over says so to whoever reads the answer, which may have come before.
    with contextlib.suppress(OSError, aiohttp.ClientError):
        left = len(body)
        for piece in _pieces_of(body):
            left -= len(piece)
            if not left:
                # Before the write, which may wait for room: a connection that is closed still sends what it was handed.
                upload.begun = True
            await writer.write(piece)
