"""What a caller may send before it is known, how much, and how slowly."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import requests

from deploy.local.stack import Stack
from gateway.bodies import FREE_BYTES
from gateway.retries import KEPT_BYTES
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from tests import forking, waiting
from tests.edge.test_ending import envoy
from tests.edge.test_requests import logged
from tests.edge.test_streams import opened
from tests.edge.upstream import STRANGER, TIMEOUT_S, Upstream

MIB = 2**20
READ_AHEAD = 48 * 2**10
"""What the edge reads of a connection beyond a full buffer, at most."""


SO_MAX_PACING_RATE = 47
"""Linux's, which Python has no name for."""
STEADY_BYTES_A_S = 160_000
SEGMENT_BYTES = 1_400
"""Loopback's own are as long as four windows' least."""

_ADDRESSES = itertools.count(256)


def address() -> str:
    """Return an address of one's own: while a share is full of bodies whose end is not yet noticed, 429 is told."""
    high, low = divmod(next(_ADDRESSES), 256)
    return f"127.3.{high}.{low}"


def started(
    edge: Stack, path: str, *headers: str, length: int | None = 60 * MIB, source: str | None = None
) -> socket.socket:
    """Begin a POST whose body is still to come."""
    link = socket.create_connection(("127.0.0.1", edge.port), TIMEOUT_S, source_address=(source or address(), 0))
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    head = [f"POST {path} HTTP/1.1", "host: moa", "content-type: application/json", framing, *headers]
    link.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return link


def poured(link: socket.socket, *, chunked: bool = False) -> None:
    """Send a body without an end until the edge takes no more of it."""
    piece = bytes(16 * 2**10)
    with contextlib.suppress(OSError):
        for _ in range(60 * MIB // len(piece)):
            link.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)


def answer_on(link: socket.socket) -> tuple[int, str]:
    """Wait for an answer; return its status and its `x-request-id`."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in received and (piece := link.recv(65536)):
            received += piece
    head = received.partition(b"\r\n\r\n")[0].decode()
    found = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("x-request-id: ")]
    return int(head.split()[1]), found[0]


@pytest.mark.parametrize("path", ["/account/login", "/account/signup", "/account/keys", "/providers", "/nowhere"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_path_that_takes_no_pictures_takes_64_kib(edge: Stack, upstream: Upstream, path: str, chunked: bool) -> None:
    """Whoever asks, and whether the length is told or not: no more of a body is read."""
    with started(edge, path, length=None if chunked else 60 * MIB) as link:
        pouring = threading.Thread(target=poured, args=(link,), kwargs={"chunked": chunked})
        pouring.start()
        status, request_id = answer_on(link)
        link.shutdown(socket.SHUT_RDWR)
        pouring.join()
    assert status in (404, 405, 413)
    assert logged(edge.log("edge"), request_id)[0]["bytes_in"] <= FREE_BYTES + READ_AHEAD


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/generate/text", "/v1/images/edits", "/v1beta/models/any:streamGenerateContent"])
def test_a_strangers_body_is_not_read(edge: Stack, upstream: Upstream, path: str, chunked: bool) -> None:
    """A key that nobody knows is 401 from the headers alone, and nothing reaches the operation."""
    with started(edge, path, f"x-api-key: {STRANGER}", length=None if chunked else 60 * MIB) as link:
        pouring = threading.Thread(target=poured, args=(link,), kwargs={"chunked": chunked})
        pouring.start()
        status, request_id = answer_on(link)
        link.shutdown(socket.SHUT_RDWR)
        pouring.join()
    assert status == 401
    assert logged(edge.log("edge"), request_id)[0]["bytes_in"] <= FREE_BYTES
    assert upstream.held.calls == 0


def test_a_stranger_who_is_still_sending_reads_why(edge: Stack, upstream: Upstream) -> None:
    """A client that reads nothing before it has sent all of 8 MiB sees the 401, in its dialect, and no broken
    connection. One that waits with the rest for an answer has it after a moment."""
    piece = b" " * 2**16
    for sent in (8 * MIB, 2**18):
        link = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=TIMEOUT_S)
        with contextlib.closing(link):
            link.putrequest("POST", "/v1/chat/completions")
            link.putheader("Authorization", f"Bearer {STRANGER}")
            link.putheader("Content-Length", str(8 * MIB))
            link.putheader("Content-Type", "application/json")
            link.endheaders()
            for _ in range(sent // len(piece)):
                link.send(piece)
            answer = link.getresponse()
            told = json.loads(answer.read())
        assert (answer.status, told["error"]["message"], told["error"]["code"]) == (
            401,
            "unknown API key",
            "invalid_api_key",
        )
        assert answer.headers["x-should-retry"] == "false"
    assert upstream.held.calls == 0


def test_a_strangers_message_is_not_read(edge: Stack, upstream: Upstream) -> None:
    """So it is over gRPC, with the status and the reason that the operation would have given."""
    asked = text_service_pb2.GenerateTextRequest(model="any")
    asked.messages.add(role=text_pb2.ROLE_USER).parts.add(text="x" * 10 * MIB)
    options = (("grpc.max_send_message_length", -1),)
    metadata = (("x-api-key", STRANGER), ("x-request-id", "large"))
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}", options) as channel:
        call = text_service_pb2_grpc.TextServiceStub(channel).GenerateText(asked, metadata=metadata, timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, "unknown API key")
    trailers: Any = caught.value.trailing_metadata()
    assert dict(trailers)["x-moa-reason"] == "unauthenticated"
    assert "x-moa-edge" not in dict(trailers)
    assert logged(edge.log("edge"), "large")[0]["bytes_in"] <= FREE_BYTES + READ_AHEAD


def test_a_known_key_is_asked_about_once(upstream: Upstream, tmp_path: Path) -> None:
    """Small bodies ask nobody, large ones ask once in a while."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}", "MOA_EDGE_WORKERS": "1"}
    with Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as edge:
        for size in (10, FREE_BYTES, FREE_BYTES + 1, MIB, MIB):
            headers = {"x-api-key": "moa-known", "content-type": "application/json"}
            answer = requests.post(
                edge.url + "/generate/text", data=b"[%s]" % (b" " * (size - 2)), headers=headers, timeout=TIMEOUT_S
            )
            assert answer.json()["size"] == size
    assert upstream.held.asked == ["moa-known"]


def test_the_unknown_of_an_address_share(upstream: Upstream, tmp_path: Path) -> None:
    """Beyond their share, unfinished bodies at one address are refused, and only there a key is asked about before a
    small body; a caller who shows one is served, and so is what has no body."""
    environment = {
        "MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}",
        "MOA_EDGE_WORKERS": "1",
        "MOA_UNKNOWN_BYTES": str(MIB),
        "MOA_EDGE_RETRIES": "2",
        # Those that are let in stay until the end, however busy the machine.
        "MOA_BODY_WINDOW_S": "60",
    }
    with (
        Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as edge,
        contextlib.ExitStack() as opened,
    ):
        let_in = []
        for _ in range(9):  # of 59,000 bytes are more than half of the share
            link = opened.enter_context(started(edge, "/account/login", length=60_000, source="127.0.0.1"))
            link.sendall(bytes(59_000))
            let_in.append(link)
            # The one worker has read what came before this.
            assert requests.get(edge.url + "/health", timeout=TIMEOUT_S).ok
        for _ in range(4):
            link = opened.enter_context(started(edge, "/account/login", length=60_000, source="127.0.0.1"))
            assert answer_on(link)[0] == 429
        assert select.select(let_in, [], [], 0)[0] == []
        for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
            assert requests.request(method, edge.url + "/v1/models", timeout=TIMEOUT_S).status_code != 429
        assert requests.get(edge.url + "/v1/models", timeout=TIMEOUT_S).ok
        # A body that comes all the same counts as others do.
        for framing, size in ((b"content-length: 60000", b""), (b"transfer-encoding: chunked", b"ea60\r\n")):
            with socket.create_connection(("127.0.0.1", edge.port), TIMEOUT_S) as link:
                link.sendall(b"GET /v1/models HTTP/1.1\r\nhost: moa\r\n" + framing + b"\r\n\r\n" + size + bytes(60_000))
                assert answer_on(link)[0] == 429
        for key, status in ((STRANGER, 401), ("moa-known", 200)):
            answer = requests.post(edge.url + "/generate/text", json={}, headers={"x-api-key": key}, timeout=TIMEOUT_S)
            assert answer.status_code == status
        assert upstream.held.asked == [STRANGER, "moa-known"]
        # IPv4 callers at another address have a share of their own.
        elsewhere = socket.create_connection(("127.0.0.1", edge.port), TIMEOUT_S, source_address=("127.0.0.2", 0))
        with elsewhere as link:
            link.sendall(b"POST /account/login HTTP/1.1\r\nhost: moa\r\ncontent-length: 60000\r\n\r\n" + bytes(60_000))
            assert answer_on(link)[0] == 503  # it was let in; nobody is behind it in this test


@pytest.fixture(scope="module")
def hasty(_running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An edge whose windows are a second long."""
    address = f"127.0.0.1:{_running.port}"
    environment = {"MOA_ROUTER_ADDRESSES": address, "MOA_TASKS_ADDRESSES": address, "MOA_BODY_WINDOW_S": "1"}
    with Stack(
        tmp_path_factory.mktemp("hasty"), processes=["edge"], start=forking.spawn, environment=environment
    ) as stack:
        yield stack
        assert "[lua]" not in stack.log("edge").read_text()


def test_slow_bodies_are_dropped(hasty: Stack, upstream: Upstream) -> None:
    """Silence, or less than 16 KiB a window, ends the request with the caller's mistake, wherever it is sent."""
    with contextlib.ExitStack() as closing:
        silent, dripping = (
            {
                path: closing.enter_context(started(hasty, path, "x-api-key: moa-known", length=60_000))
                for path in ("/create/image", "/generate/text", "/v1/images/edits")
            }
            for _ in range(2)
        )
        gone = threading.Event()

        def drip() -> None:
            while not gone.wait(0.1):
                for link in dripping.values():
                    with contextlib.suppress(OSError):
                        link.sendall(b" " * 100)

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            assert {path: answer_on(link)[0] for path, link in silent.items()} == dict.fromkeys(silent, 400)
            assert {path: answer_on(link)[0] for path, link in dripping.items()} == dict.fromkeys(dripping, 400)
        finally:
            gone.set()
            dripper.join()
    assert upstream.held.calls == 0


def test_a_slow_answer_is_not(hasty: Stack, upstream: Upstream) -> None:
    """Windows end with the body: an answer may be silent for longer, to a request with a body or without."""
    act = {"act": "sse", "events": 1, "held": True}

    def post() -> int:
        link, answer = opened(hasty, "/generate/text", act)
        with contextlib.closing(link):
            return answer.status

    def get() -> int:
        asked = {"task_id": json.dumps(act)}
        return requests.get(hasty.url + "/api/task/query", params=asked, timeout=TIMEOUT_S).status_code

    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(post), threads.submit(get)]
        pauses = waiting.pauses()
        while upstream.held.calls < 2:
            time.sleep(next(pauses))
        with started(hasty, "/generate/text", length=9) as link:
            answer_on(link)  # a window has passed
        for _ in answers:
            upstream.held.go.release()
        assert [answer.result() for answer in answers] == [200, 200]


def test_a_steady_body_passes(hasty: Stack, upstream: Upstream) -> None:
    """A body that takes many windows is taken while it keeps coming."""
    with socket.socket() as link:
        # The kernel has the whole body at once and sends it by and by: this process may come to a stop meanwhile.
        link.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, STEADY_BYTES_A_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        link.settimeout(TIMEOUT_S)
        link.connect(("127.0.0.1", hasty.port))
        size, began = int(2.5 * STEADY_BYTES_A_S), time.monotonic()
        head = f"POST /generate/text HTTP/1.1\r\nhost: moa\r\ncontent-length: {size}\r\n\r\n"
        link.sendall(head.encode() + bytes(size))
        answer = http.client.HTTPResponse(link)
        answer.begin()
        assert json.loads(answer.read())["size"] == size
        assert time.monotonic() - began > 2, "the kernel paces nothing here"


def test_200_unfinished_bodies_hold_nothing(edge: Stack, upstream: Upstream) -> None:
    """Neither memory nor callers with a key: the attack that once stopped the gateway with 18 connections."""
    before = psutil.Process(envoy(edge)).memory_info().rss
    attacker = address()
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            link = opened.enter_context(started(edge, "/account/login", length=60_000, source=attacker))
            link.sendall(bytes(50_000))
        for _ in range(20):
            headers = {"x-api-key": "moa-known"}
            assert requests.post(edge.url + "/generate/text", json={}, headers=headers, timeout=TIMEOUT_S).ok
        assert psutil.Process(envoy(edge)).memory_info().rss - before < 48 * MIB


@pytest.mark.parametrize("size", [20 * MIB + 1, 25 * MIB, 60 * MIB])
def test_too_large_is_read_by_async_clients(edge: Stack, upstream: Upstream, size: int) -> None:
    """A client that sends before it reads sees the 413, not a broken connection; the router sees nothing."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            headers = {"content-type": "application/json", "x-api-key": "moa-known"}
            return await client.post(edge.url + "/generate/text", content=bytes(size), headers=headers)

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert upstream.held.calls == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_service_is_told_how_large_a_request_is_before_it_takes_it(edge: Stack, chunked: bool) -> None:
    """As the edge counted it, whether its sender said it or not; what a sender writes under that name is dropped."""
    body = b'{"pad": "' + b"x" * (300 * 1024) + b'"}'
    sent: Any = iter([body[:1000], body[1000:]]) if chunked else body
    headers = {"content-type": "application/json", "x-moa-body-bytes": "7", "x-api-key": "moa-known"}
    answer = requests.post(f"{edge.url}/generate/text", data=sent, headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    assert int(answer.json()["metadata"]["x-moa-body-bytes"]) == len(body)


async def test_a_service_is_told_how_large_a_typed_request_is(edge: Stack, upstream: Upstream) -> None:
    """A gRPC caller's too, with the five bytes that frame a message."""
    request = text_service_pb2.CountTokensRequest(model="m" * (300 * 1024))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        stub = text_service_pb2_grpc.TextServiceStub(channel)
        await stub.CountTokens(request, metadata=(("x-api-key", "moa-known"),))
    assert upstream.held.told["x-moa-body-bytes"] == str(request.ByteSize() + 5)


def given_up(edge: Stack) -> int:
    """Return how often the edge let a request go that it had no room to keep for another try."""
    told = requests.get(edge.internal_url + "/metrics/edge", timeout=TIMEOUT_S).text
    counter = r'^envoy_cluster_retry_or_shadow_abandoned\{envoy_cluster_name="router"\} (\d+)$'
    found = re.search(counter, told, re.MULTILINE)
    return int(found[1]) if found else 0


def test_no_copy_is_kept_of_what_is_too_large_to_be_sent_again(edge: Stack, upstream: Upstream) -> None:
    """The edge holds a large body once, until it is sent; smaller ones it keeps until their answer begins."""
    before = given_up(edge)
    for size, times in ((KEPT_BYTES - MIB, 0), (KEPT_BYTES + MIB, 1)):
        body = b"[%s]" % (b" " * (size - 2))
        headers = {"X-API-Key": "moa-known", "Content-Type": "application/json"}
        answer = requests.post(edge.url + "/generate/text", data=body, headers=headers, timeout=TIMEOUT_S)
        assert answer.json()["size"] == size
        assert given_up(edge) - before == times
