"""Callers that mean harm: floods of HTTP/2 frames, requests that never end, connections that say nothing."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from deploy.local.stack import Stack
from gateway import limits
from tests import forking
from tests.edge.test_ending import envoy
from tests.edge.test_streams import opened
from tests.edge.upstream import TIMEOUT_S, Upstream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
MANY = 1_500_000
ROOM_BYTES = 64 * 2**20

GET = b"\x82\x86\x84\x41\x03moa"
"""`GET / http`, host `moa`: RFC 7541, indexed from the static table."""
POST = b"\x83\x86\x44\x0e/generate/text\x41\x03moa\x5f\x10application/json"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def ids() -> Iterator[int]:
    return itertools.count(1, 2)


def rapid_reset() -> Iterator[bytes]:
    for stream in ids():
        yield frame(HEADERS, END_HEADERS, stream, POST) + frame(RESET, 0, stream, struct.pack(">I", 8))


def pings() -> Iterator[bytes]:
    return itertools.repeat(frame(PING, 0, 0, b"12345678"))


def settings() -> Iterator[bytes]:
    return itertools.repeat(frame(SETTINGS, 0, 0))


def header_table() -> Iterator[bytes]:
    return itertools.repeat(frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 2**32 - 1) + struct.pack(">HI", 1, 0)))


def continuations() -> Iterator[bytes]:
    yield frame(HEADERS, END_STREAM, 1, GET)
    for number in itertools.count():
        yield frame(CONTINUATION, 0, 1, b"\x00\x0ax-%08x\x0ayyyyyyyyyy" % number)


def empty_data() -> Iterator[bytes]:
    yield frame(HEADERS, END_HEADERS, 1, POST)
    yield from itertools.repeat(frame(DATA, 0, 1))


def priorities() -> Iterator[bytes]:
    for stream in ids():
        yield frame(PRIORITY, 0, stream, struct.pack(">IB", 0, 1))


def windows() -> Iterator[bytes]:
    yield frame(HEADERS, END_HEADERS, 1, POST)
    yield from itertools.repeat(frame(WINDOW, 0, 1, struct.pack(">I", 1)))


FLOODS = (rapid_reset, pings, settings, header_table, continuations, empty_data, priorities, windows)


def answers(edge: Stack) -> None:
    """See that others are served."""
    assert asked(edge) is None


def test_floods_end_their_own_connections(edge: Stack, upstream: Upstream) -> None:
    """The edge closes on each caller that floods it, holds no more memory for them, and serves the others. All flood it
    at once, for it lets go of each a second later."""
    before = psutil.Process(envoy(edge)).memory_info().rss
    with ThreadPoolExecutor(len(FLOODS)) as threads:
        for each in [threads.submit(flooded, edge, flood) for flood in FLOODS]:
            each.result()
    assert psutil.Process(envoy(edge)).memory_info().rss - before < ROOM_BYTES
    answers(edge)


def flooded(edge: Stack, flood: Callable[[], Iterator[bytes]]) -> None:
    """Flood the edge; return when it has closed the connection. Raises TimeoutError where it does not."""
    with (
        socket.create_connection(("127.0.0.1", edge.port), timeout=TIMEOUT_S) as link,
        contextlib.suppress(ConnectionError),
    ):
        link.sendall(PREFACE + frame(SETTINGS, 0, 0))
        frames = flood()
        for _ in range(MANY // 1000):
            link.sendall(b"".join(itertools.islice(frames, 1000)))
        while link.recv(65536):
            pass


def test_streams_of_one_connection_are_bounded(edge: Stack, upstream: Upstream) -> None:
    """No more streams at once than the edge announced: the next one is refused, and the others go on."""
    most = limits.CALLERS["max_concurrent_streams"]
    streams = list(itertools.islice(ids(), most + 1))
    with socket.create_connection(("127.0.0.1", edge.port), timeout=TIMEOUT_S) as link:
        link.sendall(PREFACE + frame(SETTINGS, 0, 0))
        # Their bodies never end.
        link.sendall(b"".join(frame(HEADERS, END_HEADERS, stream, POST) for stream in streams))
        reader = link.makefile("rb")
        while True:
            head = reader.read(9)
            assert len(head) == 9, "the connection was closed instead"
            size, (kind, _, stream) = int.from_bytes(head[:3], "big"), struct.unpack(">BBI", head[3:])
            payload = reader.read(size)
            if kind == RESET:
                break
    assert (stream, payload) == (streams[-1], struct.pack(">I", 7))


def test_a_connection_that_stops_speaking_is_closed(upstream: Upstream, tmp_path: Path) -> None:
    """Silence, half a request and an idle HTTP/2 connection hold nothing for long."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}", "MOA_CONNECTION_IDLE_S": "1"}
    with (
        Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as edge,
        contextlib.ExitStack() as closing,
    ):
        links = []
        for said in (b"", b"POST /generate/text HTTP/1.1\r\nHost: m", PREFACE + frame(SETTINGS, 0, 0)):
            link = closing.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=60))
            link.sendall(said)
            links.append(link)
        for link in links:
            with contextlib.suppress(ConnectionResetError):
                while link.recv(65536):
                    pass


GRPC = (
    b"\x83\x86\x04\x25/moa.text.v1.TextService/GenerateText\x01\x03moa"
    b"\x00\x0ccontent-type\x10application/grpc\x00\x02te\x08trailers"
)
"""A gRPC call's headers: RFC 7541, literal strings."""
TRAILERS = bytes((HEADERS, END_HEADERS | END_STREAM))
UNFINISHED = {
    "rest": b"POST /generate/text HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    "grpc, no message": PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, GRPC),
    "grpc, half a message": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_HEADERS, 1, GRPC)
    + frame(DATA, 0, 1, b"\0\0\0\0\x50half"),
}


def test_a_request_that_never_ends_is_ended(upstream: Upstream, tmp_path: Path) -> None:
    """What did not arrive whole in time is told so; an answer that is silent for longer goes on."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}", "MOA_REQUEST_S": "1"}
    with (
        Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as edge,
        contextlib.ExitStack() as closing,
    ):
        for each in (answers := opened(edge, "/generate/text", {"act": "hang", "begin": True})):
            closing.callback(each.close)
        links = {}
        for name, said in UNFINISHED.items():
            address = ("127.0.0.1", edge.port)
            links[name] = closing.enter_context(socket.create_connection(address, timeout=TIMEOUT_S))
            links[name].sendall(said)
        for name, link in links.items():
            assert ended(link) == (b"400" if name == "rest" else TRAILERS), name
        assert answers[1].readline() == b"data: 0\n"
        assert not upstream.held.cancelled.is_set()


def ended(link: socket.socket) -> bytes:
    """Wait for the end of a request; give its HTTP status, or TRAILERS for those of a gRPC call."""
    with link.makefile("rb") as reader:
        head = reader.read(9)
        if head == b"HTTP/1.1 ":
            return reader.read(3)
        while len(head) == 9:
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            reader.read(int.from_bytes(head[:3], "big"))
            if stream == 1:
                return bytes((kind, flags))
            head = reader.read(9)
    return b""


def test_bodies_that_wait_are_bounded(upstream: Upstream, tmp_path: Path) -> None:
    """Bodies are held until they are whole. Near the edge's memory limit new requests are 503, however many come;
    once it is past they are served again."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}", "MOA_EDGE_HEAP_MB": "128"}
    with (
        Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as edge,
        contextlib.ExitStack() as opened,
    ):
        before = psutil.Process(envoy(edge)).memory_info().rss

        def poured() -> tuple[int, str] | None:
            link = opened.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=TIMEOUT_S))
            with contextlib.suppress(ConnectionError):
                link.sendall(
                    b"POST /generate/text HTTP/1.1\r\nHost: moa\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % (19 * 2**20) + bytes(18 * 2**20)
                )
            return asked(edge)

        refusals = [poured()]
        while refusals[-1] is None and len(refusals) < 40:
            refusals.append(poured())
        # Envoy lets go of each that it refuses after a second: those wait together.
        with ThreadPoolExecutor(32) as threads:
            refusals += threads.map(lambda _: poured(), range(40 - len(refusals)))
        assert set(refusals) == {None, (503, "unavailable")}
        # 720 MiB were sent.
        assert psutil.Process(envoy(edge)).memory_info().rss - before < 400 * 2**20
        opened.close()
        until = time.monotonic() + 60
        while asked(edge) is not None:
            assert time.monotonic() < until, "it refuses for ever"
            time.sleep(0.1)


def asked(edge: Stack) -> tuple[int, str] | None:
    """Ask as another caller; give the refusal, if it is one."""
    link = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=TIMEOUT_S)
    try:
        link.request("POST", "/generate/text", b"{}", {"content-type": "application/json"})
        answer = link.getresponse()
        return None if answer.status == 200 else (answer.status, json.loads(answer.read())["code"])
    finally:
        link.close()
