"""Connections to one provider, and the one way to send it a request.

aiohttp underneath. What it raises becomes the error tree here; nothing above knows which client is used.
"""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from services.catalogue import Timeouts
from services.common import logs, scrub, tracing
from services.common.errors import MoaError, UpstreamBroken, UpstreamFailed, UpstreamTimeout, word
from services.providers.http.exchange import FAILURES, Body, Connections, Exchange, Lost, Upload
from services.providers.http.unzip import NotGzip, Unzip
from services.providers.http.woven import Woven

_log = logs.get("providers.http")

MAX_ERROR_BYTES: Final = 64 * 1024
"""How much of a failed answer is read: error objects are small."""
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Longest whole answer that is read into memory."""
_KEPT_S: Final = 60.0
"""How long a connection that nobody uses is kept."""
_DRAIN_S: Final = 1.0
"""How long the end of an answer that is already known may take before its connection is given up."""
_PLAIN: Final = ("", "identity")
_GZIP: Final = ("gzip", "x-gzip")


class Outgoing(NamedTuple):
    """A request to a provider, complete but for its credentials."""

    url: URL
    body: Body
    headers: Mapping[str, str]
    method: str = "POST"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the body as a buffer, which `helper_process.Packed` hands over where it lies."""
        data = bytes(self.body) if isinstance(self.body, Woven) else self.body
        body = pickle.PickleBuffer(data) if data else data
        return Outgoing, (self.url, body, self.headers, self.method)


class Reply:
    """A provider's answer whose headers have come. Whoever holds it calls `close` or `drain` in the end."""

    __slots__ = ("_closed", "_content", "_encoding", "_exchange", "_more", "_plain", "_pool", "_span", "_unzip",
                 "headers", "status")  # fmt: skip

    def __init__(self, exchange: Exchange, pool: Pool, span: tracing.Span | None) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self._exchange = exchange
        self._content = exchange.content
        self._pool = pool
        self._closed = False
        self._more = False
        """Whether there was more than the last piece."""
        self._span = span
        # Nobody is asked for anything but `identity`; some compress all the same.
        self._encoding = self.headers.get("content-encoding", "").strip().lower()
        self._plain = self._encoding in _PLAIN
        self._unzip = Unzip() if self._encoding in _GZIP else None
        pool._running += 1

    def read_some(self, most: int = -1) -> Coroutine[Any, Any, bytes]:
        """Return the bytes that have come since, waiting for the first; empty at the end of the answer.

        `most`: no more than so many, and others have their turn before the rest. What came as gzip is unpacked, a
        bounded piece at a time. Raises UpstreamBroken when the connection ended before
        the answer did, or for another compression.
        """
        # Not a coroutine itself, which would go on with each piece of a stream.
        return self._received(most) if self._plain else self._unpacked()

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

    async def _received(self, most: int = -1) -> bytes:
        """Return the bytes that have come since, `most` of them, as they came."""
        content = self._content
        if self._more:
            await asyncio.sleep(0)
        try:
            piece = await (content.readany() if most < 0 else content.read(most))
            self._more = len(piece) == most
            return piece
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # RuntimeError: "Connection closed."
            # What came before the break is still in the buffer, which readany() no longer gives.
            if content._buffer:
                return content._read_nowait(-1)
            raise UpstreamBroken("the provider's answer broke off") from error

    async def read_all(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the rest of the answer, `limit` bytes at most. Raises UpstreamBroken if it is longer or breaks off."""
        first = await self.read_some()
        if not first or (self._unzip is None and self._content.at_eof()):
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
        self._exchange.end()
        if self._span is not None:
            self._span.note({"http.response.status_code": self.status})
            self._span.end(str(self.status) if self.status >= 400 else "")
        self._pool._reply_ended()

    def drain(self) -> None:
        """Let the last bytes of an answer that is complete come in, so that its connection can be used again."""
        if self._content.at_eof():
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
        self._kept = Connections(connect_s=timeouts.connect_s, proxy=proxy, kept_s=_KEPT_S)
        self._fresh: Connections | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._running = 0
        self._ended: asyncio.Future[None] | None = None

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
            upload = upload or Upload()
            exchange = await answered(outgoing, headers, upload)
            # A provider may answer before it has read everything.
            upload.begun = True
            return Reply(exchange, self, span)
        except BaseException as error:
            if span is not None:
                span.end(word(error.reason) if isinstance(error, MoaError) else "cancelled")
            raise

    async def _answered(self, outgoing: Outgoing, headers: Mapping[str, str], upload: Upload) -> Exchange:
        url, body, _, method = outgoing
        try:
            return await self._kept.ask(method, url, body, headers, upload)
        except Lost:
            pass
        except FAILURES as error:
            raise _error_of(error) from error
        return await self._answered_once(outgoing, headers, upload)

    async def _answered_once(self, outgoing: Outgoing, headers: Mapping[str, str], upload: Upload) -> Exchange:
        url, body, _, method = outgoing
        if self._fresh is None:
            self._fresh = Connections(connect_s=self.timeouts.connect_s, proxy=self._proxy, kept_s=None)
        upload.begun = False
        try:
            return await self._fresh.ask(method, url, body, headers, upload)
        except FAILURES as error:
            raise _error_of(error) from error

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
    """Return what a caller is told, without addresses; why there is no connection is in the log."""
    if isinstance(error, TimeoutError):  # aiohttp's ConnectionTimeoutError is one too
        return UpstreamTimeout("the provider did not accept a connection in time")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        _log.warning("proxy.away", why=str(error.os_error))
        return UpstreamFailed("the proxy before the provider cannot be reached")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        _log.warning("proxy.refused", status=error.status, why=error.message)
        return UpstreamFailed(f"the proxy before the provider refused the connection with HTTP {error.status}")
    if isinstance(error, aiohttp.ClientConnectorError):
        _log.warning("provider.unreachable", why=str(error))
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return UpstreamFailed("the provider's certificate is not trusted")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return UpstreamFailed("the provider's name cannot be resolved")
        return UpstreamFailed("the provider cannot be reached")
    if isinstance(error, aiohttp.InvalidURL):
        return UpstreamFailed("the provider's address is not valid")
    return UpstreamBroken("the provider closed the connection before it answered")
