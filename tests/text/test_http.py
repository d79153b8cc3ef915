"""The shared HTTP pieces."""

import asyncio
import contextlib
import pickle
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from yarl import URL

from services.catalogue import Timeouts
from services.common import errors
from services.common.helper_process import Packed
from services.providers.credentials import HeaderKeys, Keys
from services.providers.http import retry_after
from services.providers.http.classify import classified
from services.providers.http.client import Outgoing, Pool
from services.providers.http.deadline import Deadline
from services.providers.http.exchange import Upload
from tests.authority import Authority
from tests.waiting import Turns


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "999999999"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_spelling(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and nonsense are told apart."""
    assert retry_after.from_headers(headers) == seconds


def test_retry_after_as_a_date_is_counted_from_now() -> None:
    """An HTTP date gives what is left until then."""
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    seconds = retry_after.from_headers({"retry-after": when})
    assert seconds is not None
    assert 27 < seconds <= 30


@pytest.mark.parametrize(
    ("text", "seconds"), [("34.4s", 34.4), ("6m0s", 360.0), ("1h2m", 3720.0), ("250ms", 0.25), ("", None), ("x", None)]
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    """Google's and Go's durations become seconds."""
    assert retry_after.from_duration(text) == pytest.approx(seconds)


def test_the_providers_words_reach_the_caller_only_about_the_callers_request() -> None:
    """A bad request's words are passed on, bounded; those about the gateway's key are not."""
    told = classified(400, codes={}, words="image too small\n" + "x" * 900)
    assert isinstance(told, errors.UpstreamRejected)
    assert "image too small" in told.message
    assert len(told.message) < 600
    hidden = classified(401, codes={}, words="key sk-secret is wrong")
    assert isinstance(hidden, errors.UpstreamAuth)
    assert "sk-secret" not in hidden.message


def test_keys_take_turns_and_pass_over_the_resting_one() -> None:
    """Three keys rotate; a resting one is skipped until it wakes."""
    now = [0.0]
    keys = Keys(["a", "b", "c"], clock=lambda: now[0])
    assert [keys.take() for _ in range(4)] == [0, 1, 2, 0]
    assert keys.rest(1, 10)
    assert [keys.take() for _ in range(3)] == [2, 0, 2]
    now[0] = 11
    assert sorted(keys.take() for _ in range(3)) == [0, 1, 2]
    assert not all([keys.rest(0, 5), keys.rest(1, 5), keys.rest(2, 9)])
    assert keys.take() == 0


async def test_without_keys_no_credential_is_sent() -> None:
    """A server of one's own gets no Authorization header."""
    outgoing = Outgoing(URL("http://x/"), b"", {})
    assert await HeaderKeys("Authorization", [], {"A": "b"}).headers(outgoing) == {"A": "b"}


async def test_a_deadline_that_moves_does_not_fire_early() -> None:
    """A wait longer than the first bound survives when the bound was moved; the last one fires."""

    async def work() -> None:
        with Deadline() as deadline:
            deadline.within(0.02, "begin")
            deadline.rest()
            await asyncio.sleep(0.05)
            deadline.within(3600, "wait")
            deadline.within(0.02, "go on")
            await asyncio.Event().wait()

    with pytest.raises(errors.UpstreamTimeout, match="did not go on in time"):
        await asyncio.wait_for(work(), 60)


async def test_a_nearer_bound_after_a_rest_holds() -> None:
    """A provider that may take an hour to begin and a moment to go on is told off after the moment."""

    async def work() -> None:
        with Deadline() as deadline:
            deadline.within(3600, "begin")
            deadline.rest()
            deadline.within(0.02, "go on")
            await asyncio.Event().wait()

    with pytest.raises(errors.UpstreamTimeout, match="did not go on in time"):
        await asyncio.wait_for(work(), 60)


async def test_a_cancellation_inside_a_deadline_stays_one() -> None:
    """Who is cancelled from outside sees a cancellation, not a timeout."""
    entered = asyncio.Event()

    async def work() -> None:
        with Deadline() as deadline:
            deadline.within(30, "answer")
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class _Cut(bytes):
    """An answer after which the connection is closed."""


class _Raw:
    """A TCP server that answers each request with the next of `answers`; None closes the connection instead."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = answers
        self.requests: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if isinstance(answer, _Cut):
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def _get(pool: Pool, url: str) -> bytes:
    reply = await pool.send(Outgoing(URL(url), b"", {}, "POST"), {})
    try:
        return await reply.read_all()
    finally:
        reply.close()


async def test_a_stale_connection_is_replaced_once() -> None:
    """A kept connection that the provider drops unanswered is retried on a fresh one."""
    server = _Raw([OK, None, OK])
    pool = Pool(Timeouts())
    async with server as url:
        assert await _get(pool, url) == b"ok"
        assert await _get(pool, url) == b"ok"
        await pool.close()
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_fresh_connection_that_drops_is_not_asked_again() -> None:
    """A request that may have been worked on is not sent twice."""
    server = _Raw([None, OK])
    pool = Pool(Timeouts())
    async with server as url:
        with pytest.raises(errors.UpstreamBroken):
            await _get(pool, url)
        await pool.close()
    assert len(server.requests) == 1


async def test_a_piece_is_no_longer_than_asked_for_and_others_go_on_between() -> None:
    """However much has come at once."""
    body = bytes(range(250)) * 400
    server = _Raw([b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + body])
    async with server as url:
        pool = Pool(Timeouts())
        reply = await pool.send(Outgoing(URL(url), b"", {}, "POST"), {})
        # All of it has come.
        while reply._content.total_bytes < len(body):  # noqa: SLF001  # nothing else tells
            await asyncio.sleep(0)
        pieces, at = [], []
        async with Turns() as turns:
            while piece := await reply.read_some(8192):
                pieces.append(piece)
                at.append(turns.taken)
        reply.close()
        await pool.close()
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) == 8192
    assert len(pieces) == 13
    # They begin while the second is waited for.
    assert len(set(at[1:])) == 12


async def test_an_answer_that_began_is_not_asked_again() -> None:
    """Half an answer on a kept connection is a broken one, not a reason to ask twice."""
    server = _Raw([OK, _Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), OK])
    pool = Pool(Timeouts())
    async with server as url:
        assert await _get(pool, url) == b"ok"
        with pytest.raises(errors.UpstreamBroken):
            await _get(pool, url)
        await pool.close()
    assert len(server.requests) == 2


async def test_nobody_listening_is_an_upstream_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection, or a name that nobody knows, is the provider's failure, told without addresses."""

    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with _Raw([]) as url:
        pass
    pool = Pool(Timeouts())
    with capture_logs() as lines, pytest.raises(errors.UpstreamFailed, match="cannot be reached") as told:
        await _get(pool, url)
    assert "127.0.0.1" not in told.value.message
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with capture_logs() as others, pytest.raises(errors.UpstreamFailed, match="name cannot be resolved"):
        await _get(pool, "http://provider.invalid")
    assert [line["event"] for line in (*lines, *others)] == ["provider.unreachable"] * 2
    assert "Connect call failed" in lines[0]["why"]
    await pool.close()


async def test_a_certificate_of_nobody_known_is_told_as_such(tmp_path: Path) -> None:
    """A company's own authority that nobody named looks like this, and the log says what is wrong with it."""
    folder = Authority().certify(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    pool = Pool(Timeouts())
    with capture_logs() as lines, pytest.raises(errors.UpstreamFailed, match="certificate is not trusted"):
        await _get(pool, f"https://localhost:{server.sockets[0].getsockname()[1]}")
    assert [line["event"] for line in lines] == ["provider.unreachable"]
    assert "CERTIFICATE_VERIFY_FAILED" in lines[0]["why"]
    await pool.close()
    server.close()


async def test_what_a_proxy_does_is_not_blamed_on_the_provider() -> None:
    """One that refuses is told with its status, one that is away as such; the log has why, nobody the address."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with _Raw([refusal]) as url:
        pool = Pool(Timeouts(), proxy=url)
        with capture_logs() as lines, pytest.raises(errors.UpstreamFailed, match=r"proxy .* refused .* 407") as told:
            await _get(pool, "https://provider.invalid")
    assert [(line["event"], line["status"]) for line in lines] == [("proxy.refused", 407)]
    with capture_logs() as lines, pytest.raises(errors.UpstreamFailed, match=r"proxy .* cannot be reached") as away:
        await _get(pool, "https://provider.invalid")
    assert [line["event"] for line in lines] == ["proxy.away"]
    assert all("127.0.0.1" not in error.value.message for error in (told, away))
    await pool.close()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 Connection established\r\n\r\n"])
async def test_a_proxy_that_hangs_is_given_up_as_a_connection_is(says: bytes) -> None:
    """Before its answer to CONNECT, and in the handshake behind it."""
    left = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        # Whoever leaves with our words unread resets the connection.
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(4096):
                pass
        left.set()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    pool = Pool(Timeouts(connect_s=0.2), proxy=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(errors.UpstreamTimeout, match="did not accept a connection"):
        await _get(pool, "https://provider.invalid")
    await left.wait()
    await pool.close()
    server.close()


async def test_redirects_are_not_followed() -> None:
    """A provider's redirect would take the credentials elsewhere."""
    app = web.Application()

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:1/")

    app.add_routes([web.post("/", away)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    pool = Pool(Timeouts())
    reply = await pool.send(Outgoing(URL(f"http://127.0.0.1:{runner.addresses[0][1]}/"), b"", {}), {})
    assert reply.status == 302
    reply.close()
    await pool.close()
    await runner.cleanup()


class _Server:
    """A server that takes in what it is told to of each request, and answers with a status, or never."""

    def __init__(self, *, reads: bool = True, status: int | None = None) -> None:
        self._reads, self._status = reads, status
        self.port = 0
        self.connected = asyncio.Event()
        self.received = asyncio.Event()
        """Set when a whole body of `size` bytes has been read."""
        self.size = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "_Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connected.set()
        if not self._reads:
            return
        while (await reader.readline()).strip():
            pass
        got = 0
        while got < self.size and (data := await reader.read(1 << 16)):
            got += len(data)
        if got >= self.size:
            self.received.set()
        if self._status is not None:
            writer.write(f"HTTP/1.1 {self._status} No\r\nContent-Length: 0\r\n\r\n".encode())


def _pool() -> Pool:
    return Pool(Timeouts(connect_s=30, first_token_s=30, idle_s=30))


@pytest.mark.parametrize("size", [100, 256 * 1024, 3_000_000])
async def test_a_call_has_begun_once_its_whole_body_was_handed_over(size: int) -> None:
    """Whoever leaves when the provider has the whole body leaves a call that has begun, whatever its size."""
    pool, upload = _pool(), Upload()
    async with _Server() as server:
        server.size = size
        outgoing = Outgoing(URL(f"http://127.0.0.1:{server.port}/"), b"x" * size, {})
        sending = asyncio.create_task(pool.send(outgoing, {}, upload))
        await asyncio.wait_for(server.received.wait(), 30)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert upload.begun
        await pool.close()


async def test_a_call_whose_body_is_not_taken_in_has_not_begun() -> None:
    """A provider that reads nothing of a body that no socket holds has no work: its caller leaves and owes nothing."""
    pool, upload = _pool(), Upload()
    async with _Server(reads=False) as server:
        outgoing = Outgoing(URL(f"http://127.0.0.1:{server.port}/"), bytes(64 << 20), {})
        sending = asyncio.create_task(pool.send(outgoing, {}, upload))
        await asyncio.wait_for(server.connected.wait(), 30)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert not upload.begun
        await pool.close()


async def test_a_call_that_nobody_takes_has_not_begun() -> None:
    """No connection, no work."""
    pool, upload = _pool(), Upload()
    async with _Server() as server:
        port = server.port
    with pytest.raises(errors.UpstreamFailed):
        await pool.send(Outgoing(URL(f"http://127.0.0.1:{port}/"), b"x", {}), {}, upload)
    assert not upload.begun
    await pool.close()


def test_a_body_leaves_the_helper_process_beside_what_is_pickled() -> None:
    """It is read where it was received: neither end copies it into or out of a pickle."""
    sent = Outgoing(URL("https://provider.invalid/"), b"x" * 100_000, {"a": "b"})
    packed = Packed([sent, sent])
    assert len(packed.pickled) < 1_000
    assert packed.sizes == [100_000]
    received = bytearray(packed.buffers[0].raw())
    first, second = pickle.loads(packed.pickled, buffers=[received])  # of this test
    assert first is second
    assert first == sent
    assert first.body.obj is received
    assert pickle.loads(Packed(sent._replace(body=b"")).pickled).body == b""  # of this test
