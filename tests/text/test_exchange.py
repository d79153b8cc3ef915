"""Requests and answers over connections, whatever their framing and whatever else comes over the wire."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from bench import http_clients
from services.catalogue import Timeouts
from services.common import errors
from services.providers.http import exchange
from services.providers.http.client import Outgoing, Pool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def _pool(*, proxy: str | None = None) -> AsyncIterator[Pool]:
    pool = Pool(Timeouts(connect_s=30, first_token_s=30, idle_s=30), proxy=proxy)
    yield pool
    await pool.close()


class _Server:
    """Answers each request with `OK`, and says what came."""

    def __init__(self, *, then: bytes = b"", reads: int | None = None) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.may_speak = asyncio.Event()
        self.spoke = asyncio.Event()
        """Set when all was said that nobody asked for."""
        self._running: set[asyncio.Future[None]] = set()
        self._then = then
        self._reads = reads

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        await asyncio.gather(*self._running)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ended = asyncio.get_running_loop().create_future()
        self._running.add(ended)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                self.bodies.append(await reader.readexactly(length if self._reads is None else self._reads))
                writer.write(OK)
                await writer.drain()
                if self._then:
                    await self.may_speak.wait()
                    writer.write(self._then)
                    await writer.drain()
                    self.spoke.set()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()
            ended.set_result(None)


async def _ask(
    pool: Pool, url: str, body: bytes = b"", headers: dict[str, str] | None = None, how: str = "POST"
) -> bytes:
    reply = await pool.send(Outgoing(URL(url), body, {}, how), headers or {})
    try:
        return await reply.read_all()
    finally:
        reply.close()


async def test_aiohttp_is_the_release_whose_insides_were_read() -> None:
    """After an upgrade, `exchange.CHECKED` says what is compared before it is set anew."""
    assert ".".join(aiohttp.__version__.split(".")[:2]) == exchange.CHECKED
    connector = aiohttp.TCPConnector()
    try:
        assert {"_factory"} <= vars(connector).keys()
        assert {"_payload"} <= vars(ResponseHandler(asyncio.get_running_loop())).keys()
    finally:
        await connector.close()


async def test_every_framing_is_read_right() -> None:
    """Lengths, chunks, extensions, trailers, 1xx, the connection's end, a proxy; what is cut off never looks whole."""
    server = await asyncio.start_server(http_clients.play, "127.0.0.1", 0)
    found = await http_clients.framings(http_clients.gateway, server.sockets[0].getsockname()[1])
    server.close()
    assert found == dict.fromkeys(found, "right")
    assert len(found) == len(http_clients.FRAMINGS) + 1


async def test_a_request_says_what_it_is() -> None:
    """Its target, its host, its length, the headers it was given, and none of the client's own."""
    server = _Server()
    async with server.serving() as port, _pool() as pool:
        url = f"http://127.0.0.1:{port}/v1/a%20b?x=1#part"
        assert await _ask(pool, url, b"{}", {"X-Key": "k"}) == b"ok"
        await _ask(pool, url, how="GET")
        await _ask(pool, url, how="DELETE")
    first, second, third = (head.decode().split("\r\n") for head in server.heads)
    assert first[0] == "POST /v1/a%20b?x=1 HTTP/1.1"
    assert sorted(first[1:-2]) == ["Content-Length: 2", f"Host: 127.0.0.1:{port}", "X-Key: k"]
    assert second == ["GET /v1/a%20b?x=1 HTTP/1.1", f"Host: 127.0.0.1:{port}", "", ""]
    assert sorted(third[1:-2]) == ["Content-Length: 0", f"Host: 127.0.0.1:{port}"]
    assert server.connections == 1


@pytest.mark.parametrize("size", [60_000, 1_000_000])
async def test_bodies_arrive_whole(size: int) -> None:
    """Small and large ones."""
    server = _Server()
    body = bytes(range(250)) * (size // 250)
    async with server.serving() as port, _pool() as pool:
        for _ in range(2):
            assert await _ask(pool, f"http://127.0.0.1:{port}/", body) == b"ok"
    assert server.bodies == [body, body]
    assert server.connections == 1


async def test_an_answer_before_the_whole_request_is_read_and_its_connection_given_up() -> None:
    """A provider that has seen enough of a large body says so; the rest of it is not taken for the next request."""
    server = _Server(reads=10)
    async with server.serving() as port, _pool() as pool:
        for _ in range(2):
            assert await _ask(pool, f"http://127.0.0.1:{port}/", bytes(64 << 20)) == b"ok"
    assert server.connections == 2
    assert server.bodies == [bytes(10)] * 2


async def test_a_name_in_the_address_is_sent_as_a_header() -> None:
    """And not in the request's target."""
    server = _Server()
    async with server.serving() as port, _pool() as pool:
        await _ask(pool, f"http://me:secret@127.0.0.1:{port}/x")
    assert server.heads[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"Authorization: Basic " + b64encode(b"me:secret") in server.heads[0]


async def test_a_proxy_is_told_the_whole_address_and_its_own_password() -> None:
    """Without the password of whoever is behind it."""
    server = _Server()
    async with server.serving() as port, _pool(proxy=f"http://us:word@127.0.0.1:{port}") as pool:
        for _ in range(2):
            assert await _ask(pool, "http://me:secret@provider.invalid:81/x?y") == b"ok"
    assert server.connections == 1
    for head in server.heads:
        assert head.startswith(b"POST http://provider.invalid:81/x?y HTTP/1.1\r\n")
        assert b"\r\nHost: provider.invalid:81\r\n" in head
        assert b"\r\nProxy-Authorization: Basic " + b64encode(b"us:word") in head
        assert b"\r\nAuthorization: Basic " + b64encode(b"me:secret") in head


async def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    """A connection over which more came than the answer carries no second request."""
    server = _Server(then=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
    async with server.serving() as port, _Server().serving() as other, _pool() as pool:
        assert await _ask(pool, f"http://127.0.0.1:{port}/") == b"ok"
        server.may_speak.set()
        await server.spoke.wait()
        # What it wrote has come by then.
        await _ask(pool, f"http://127.0.0.1:{other}/")
        assert await _ask(pool, f"http://127.0.0.1:{port}/") == b"ok"
    assert server.connections == 2


async def test_a_header_cannot_be_two() -> None:
    """A line's end in a value is refused before anything is sent."""
    server = _Server()
    async with server.serving() as port, _pool() as pool:
        with pytest.raises(ValueError, match="header injection"):
            await _ask(pool, f"http://127.0.0.1:{port}/", headers={"X-Key": "k\r\nX-Other: y"})
    assert server.heads == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http:///x", "/x"])
async def test_an_address_that_is_none_is_the_operators_fault(url: str) -> None:
    """It is told as an address that is not valid."""
    async with _pool() as pool:
        with pytest.raises(errors.UpstreamFailed, match="address is not valid"):
            await _ask(pool, url)


async def test_whoever_reads_on_is_told_that_the_connection_is_closed() -> None:
    """An answer that is closed in the middle ends for its reader."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with _pool() as pool:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        reply = await pool.send(Outgoing(URL(url), b"", {}, "POST"), {})
        assert await reply.read_some() == b"half"
        reading = asyncio.create_task(reply.read_some())
        await asyncio.sleep(0)
        reply.close()
        with pytest.raises(errors.UpstreamBroken):
            await asyncio.wait_for(reading, 30)
    server.close()
