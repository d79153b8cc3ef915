"""Connections to one provider, and the one way to send it a request.

aiohttp underneath. What it raises becomes the error tree here; nothing above knows which client is used.
"""

from __future__ import annotations

import asyncio
import functools
import pickle
import re
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from services.catalogue import Timeouts
from services.common import scrub, tracing
from services.common.errors import MoaError, UpstreamBroken, UpstreamFailed, UpstreamTimeout, word
from services.providers.http.unzip import NotGzip, Unzip

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

MAX_ERROR_BYTES: Final = 64 * 1024
"""How much of a failed answer is read: error objects are small."""
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Longest whole answer that is read into memory."""
_PIECE_BYTES: Final = 256 * 1024
"""A body is handed to its connection in pieces of this size, so that a large one does not hold the loop."""
_DRAIN_S: Final = 1.0
"""How long the end of an answer that is already known may take before its connection is given up."""
_PLAIN: Final = ("", "identity")
_GZIP: Final = ("gzip", "x-gzip")

_made_connection: ContextVar[bool] = ContextVar("made_connection", default=False)


class Outgoing(NamedTuple):
    """A request to a provider, complete but for its credentials."""

    url: URL
    body: bytes | memoryview
    headers: Mapping[str, str]
    method: str = "POST"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the body as a buffer, which `helper_process.Packed` hands over where it lies."""
        body = pickle.PickleBuffer(self.body) if self.body else self.body
        return Outgoing, (self.url, body, self.headers, self.method)


class Upload:
    """How far a request has come on its way to the provider. Made for one request; may be read after its failure."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False
        """Whether the provider may be at work: its headers and whole body were written, or a byte of the answer was
        read, and no refusal came (docs/charging.md)."""


class _Body(aiohttp.Payload):
    """A request's body that notes when its last byte has been handed to the connection."""

    _autoclose = True

    def __init__(self, body: bytes | memoryview, upload: Upload) -> None:
        super().__init__(body)
        self._size = len(body)
        self._upload = upload

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        body: bytes | memoryview = self._value
        start, end = 0, len(body) if content_length is None else min(content_length, len(body))
        while end - start > _PIECE_BYTES:
            await writer.write(memoryview(body)[start : start + _PIECE_BYTES])
            start += _PIECE_BYTES
        # Before the write, which may wait for room: a connection that is closed still sends what it was handed.
        self._upload.begun = True
        await writer.write(memoryview(body)[start:end] if start else body)


class _Protocol(ResponseHandler):
    """Tells whoever reads an answer that its framing is broken.

    aiohttp closes the connection at a chunk's size that is none, and lets the reader wait for more.
    """

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the answer that was being read, where nothing else does."""
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError("the answer's framing is broken"))


class _Connector(aiohttp.TCPConnector):
    """Notes, in the context of the request that needed it, that a connection was made and not taken from the pool."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        factory = functools.partial(_Protocol, loop=self._loop)
        self._factory = cast("functools.partial[ResponseHandler]", factory)

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's signature
    ) -> ResponseHandler:
        _made_connection.set(True)
        return await super()._create_connection(req, traces, timeout)


class Reply:
    """A provider's answer whose headers have come. Whoever holds it calls `close` or `drain` in the end."""

    __slots__ = ("_closed", "_encoding", "_plain", "_pool", "_response", "_span", "_unzip", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, pool: Pool, span: tracing.Span | None) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._pool = pool
        self._closed = False
        self._span = span
        # Nobody is asked for anything but `identity`; some compress all the same.
        self._encoding = self.headers.get("content-encoding", "").strip().lower()
        self._plain = self._encoding in _PLAIN
        self._unzip = Unzip() if self._encoding in _GZIP else None
        pool._running += 1

    def read_some(self) -> Coroutine[Any, Any, bytes]:
        """Return the bytes that have come since, waiting for the first; empty at the end of the answer.

        What came as gzip is unpacked, a bounded piece at a time. Raises UpstreamBroken when the connection ended before
        the answer did, or for another compression.
        """
        # Not a coroutine itself, which would go on with each piece of a stream.
        return self._received() if self._plain else self._unpacked()

    async def _unpacked(self) -> bytes:
        """Return the bytes that have come since, unpacked."""
        unzip = self._unzip
        if unzip is None:
            raise UpstreamBroken(
                f"the provider's answer is compressed ({_shown(self._encoding)}), which nobody asked for"
            )
        while True:
            if unzip.pending:
                # Nothing is awaited while there is more to unpack, and others have their turn.
                await asyncio.sleep(0)
            elif packed := await self._received():
                unzip.put(packed)
            elif unzip.amid:
                raise UpstreamBroken("the provider's answer broke off")
            else:
                return b""
            try:
                piece = unzip.some()
            except NotGzip as error:
                raise UpstreamBroken("the provider's answer is said to be gzip, and is not") from error
            if piece:
                return piece

    async def _received(self) -> bytes:
        """Return the bytes that have come since, as they came."""
        content = self._response.content
        try:
            return await content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # RuntimeError: "Connection closed."
            # What came before the break is still in the buffer, which readany() no longer gives.
            if content._buffer:
                return content._read_nowait(-1)
            raise UpstreamBroken("the provider's answer broke off") from error

    async def read_all(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the rest of the answer, `limit` bytes at most. Raises UpstreamBroken if it is longer or breaks off."""
        first = await self.read_some()
        if not first or (self._unzip is None and self._response.content.at_eof()):
            return first
        pieces = [first]
        size = len(first)
        while piece := await self.read_some():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise UpstreamBroken("the provider's answer is too long")
        return b"".join(pieces)

    def close(self) -> None:
        """Close the socket now, unless the whole answer has come: then its connection goes back to the pool."""
        if self._closed:
            return
        self._closed = True
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()
        if self._span is not None:
            self._span.note({"http.response.status_code": self.status})
            self._span.end(str(self.status) if self.status >= 400 else "")
        self._pool._reply_ended()

    def drain(self) -> None:
        """Let the last bytes of an answer that is complete come in, so that its connection can be used again."""
        if self._response.content.at_eof():
            self.close()
            return
        self._pool._in_background(self._drained())

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_S):
                while await self._received():
                    pass
        except (TimeoutError, MoaError):
            pass
        finally:
            self.close()


class Pool:
    """One provider's connections, kept alive between requests.

    Args:
        timeouts: How long the provider may be silent.
        proxy: The HTTP proxy between, if there is one (`proxy_for`).
    """

    def __init__(self, timeouts: Timeouts, *, proxy: str | None = None) -> None:
        self.timeouts = timeouts
        self._proxy = proxy
        self._kept = self._session(force_close=False)
        self._fresh: aiohttp.ClientSession | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._running = 0
        self._ended: asyncio.Future[None] | None = None

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        connector = (
            _Connector(limit=0, force_close=True) if force_close else _Connector(limit=0, keepalive_timeout=60.0)
        )
        return aiohttp.ClientSession(
            connector=connector,
            # One object for all requests; what follows the connection is bounded by the caller's Deadline.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            proxy=self._proxy,
            read_bufsize=2**18,
        )

    async def send(
        self,
        outgoing: Outgoing,
        headers: Mapping[str, str],
        upload: Upload | None = None,
        *,
        own_connection: bool = False,
    ) -> Reply:
        """Send a request and return its answer when the headers have come. The caller calls `close` or `drain` on it.

        `upload` is told how far the request came, also when this is cancelled or raises. `own_connection`: by one that
        no other request uses, so that it is never sent again.

        A connection from the pool that the provider had closed meanwhile is replaced once, and only when not one
        byte of an answer had come. Raises UpstreamTimeout when no connection stands in time, UpstreamFailed when
        the provider cannot be reached, UpstreamBroken when it hung up.
        """
        span = tracing.calling(outgoing.method, _told_of(outgoing)) if tracing.is_on() else None
        try:
            answered = self._answered_once if own_connection else self._answered
            return Reply(await answered(outgoing, headers, upload or Upload()), self, span)
        except BaseException as error:
            if span is not None:
                span.end(word(error.reason) if isinstance(error, MoaError) else "cancelled")
            raise

    async def _answered(self, outgoing: Outgoing, headers: Mapping[str, str], upload: Upload) -> aiohttp.ClientResponse:
        _made_connection.set(False)
        try:
            return await self._request(self._kept, outgoing, headers, upload)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) or _made_connection.get():
                raise _error_of(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _error_of(error) from error
        return await self._answered_once(outgoing, headers, upload)

    async def _answered_once(
        self, outgoing: Outgoing, headers: Mapping[str, str], upload: Upload
    ) -> aiohttp.ClientResponse:
        if self._fresh is None:
            self._fresh = self._session(force_close=True)
        try:
            return await self._request(self._fresh, outgoing, headers, upload)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _error_of(error) from error

    @staticmethod
    async def _request(
        session: aiohttp.ClientSession, outgoing: Outgoing, headers: Mapping[str, str], upload: Upload
    ) -> aiohttp.ClientResponse:
        upload.begun = False
        response = await session.request(
            outgoing.method,
            outgoing.url,
            data=_Body(outgoing.body, upload) if outgoing.body else None,
            headers=headers,
            allow_redirects=False,
        )
        # A provider may answer before it has read everything.
        upload.begun = True
        return response

    def _reply_ended(self) -> None:
        self._running -= 1
        if not self._running and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def retire(self) -> None:
        """Close the connections once the answers that are under way have ended."""
        if self._running:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        for task in list(self._background):
            task.cancel()
        await self._kept.close()
        if self._fresh is not None:
            await self._fresh.close()


def proxy_for(url: str) -> str | None:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` mean for `url`, or None."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    proxy = getproxies().get(parts.scheme)
    if proxy:
        scrub.know(proxy)
    return proxy


def _shown(encoding: str) -> str:
    """Return the name of an encoding as it may be shown: the provider wrote it."""
    return encoding if re.fullmatch(r"[a-z0-9, -]{1,40}", encoding) else "unknown"


def _told_of(outgoing: Outgoing) -> dict[str, tracing.Value]:
    """Return what a span tells of a request: where it goes. Queries may hold keys."""
    url = outgoing.url
    return {
        "http.request.method": outgoing.method,
        "server.address": url.host or "",
        "server.port": url.port or 0,
        "url.full": str(url.with_query(None).with_fragment(None).with_user(None)),
    }


def _error_of(error: Exception) -> MoaError:
    if isinstance(error, TimeoutError):  # aiohttp's ConnectionTimeoutError is one too
        return UpstreamTimeout("the provider did not accept a connection in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamFailed("the provider cannot be reached")
    if isinstance(error, aiohttp.InvalidURL):
        return UpstreamFailed("the provider's address is not valid")
    return UpstreamBroken("the provider closed the connection before it answered")
