"""A large body is read once its router has room for it: its caller keeps it until then."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack

import pytest
import requests

from deploy.local.stack import Stack
from gateway.bodies import FLOOR_BYTES
from services.common.byte_admission import Bounds
from tests import forking
from tests.edge.test_bodies import MIB, answer_on, started
from tests.edge.upstream import TIMEOUT_S, Upstream

SIZE = 8 * MIB
READ = MIB
"""So much of a body may be read before there is room: what buffers hold."""


@pytest.fixture(scope="module")
def waiting(_running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An edge with a router for large requests, whose windows are a second long."""
    address = f"127.0.0.1:{_running.port}"
    environment = {
        "MOA_ROUTER_ADDRESSES": address,
        "MOA_LARGE_ROUTER_ADDRESSES": address,
        "MOA_BODY_WINDOW_S": "1",
        "MOA_EDGE_RETRIES": "2",
    }
    with Stack(
        tmp_path_factory.mktemp("waiting"), processes=["edge"], start=forking.spawn, environment=environment
    ) as stack:
        yield stack
        assert "[lua]" not in stack.log("edge").read_text()


def posted(edge: Stack, size: int = SIZE, **headers: str) -> requests.Response:
    body = b"[%s]" % (b" " * (size - 2))
    given = {"X-API-Key": "moa-known", "Content-Type": "application/json", **headers}
    return requests.post(edge.url + "/generate/text", data=body, headers=given, timeout=TIMEOUT_S)


def read_bytes(edge: Stack) -> int:
    """Return how much the edge has read of all its callers."""
    told = requests.get(edge.internal_url + "/metrics/edge", timeout=TIMEOUT_S).text
    counter = r'^envoy_http_downstream_cx_rx_bytes_total\{envoy_http_conn_manager_prefix="public"\} (\d+)$'
    found = re.search(counter, told, re.MULTILINE)
    assert found is not None
    return int(found[1])


def until(true: Callable[[], bool]) -> None:
    """Look at the router's state, which its own thread changes, until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def full(upstream: Upstream) -> AsyncExitStack:
    """Take all the room that the router has; leave what is returned to give it back."""
    room = AsyncExitStack()
    upstream.run(lambda: room.enter_async_context(upstream.room.entered("other", 2 * Bounds().served)))
    return room


def test_a_large_body_is_read_once_there_is_room(waiting: Stack, upstream: Upstream) -> None:
    """However long that takes: no window of a body counts meanwhile. Smaller ones pass, and no room is left taken."""
    room, before = full(upstream), read_bytes(waiting)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(posted, waiting)
        until(lambda: upstream.room.unsent == 1)
        with started(waiting, "/generate/text", length=9) as link:
            assert answer_on(link)[0] == 400  # a window has passed
        assert posted(waiting, MIB // 8).json()["size"] == MIB // 8
        assert not answer.done()
        assert read_bytes(waiting) - before < READ
        upstream.run(room.aclose)
        assert answer.result().json()["size"] == SIZE
    until(lambda: (upstream.room.served_bytes, upstream.room.waiting_bytes) == (0, 0))


def test_who_leaves_before_there_is_room_waits_no_more(waiting: Stack, upstream: Upstream) -> None:
    """Its place in the queue goes with it."""
    room = full(upstream)
    with started(waiting, "/generate/text", "x-api-key: moa-known", length=SIZE) as link:
        link.sendall(bytes(FLOOR_BYTES))
        until(lambda: upstream.room.unsent == 1)
    until(lambda: upstream.room.unsent == 0)
    upstream.run(room.aclose)
    until(lambda: upstream.room.served_bytes == 0)


def test_who_sends_nothing_asks_for_no_room(waiting: Stack, upstream: Upstream) -> None:
    """Whoever promises bodies and sends none of them delays nobody."""
    with ExitStack() as stalled:
        links = [started(waiting, "/generate/text", "x-api-key: moa-known", length=15 * MIB) for _ in range(20)]
        for link in links:
            stalled.enter_context(link)
            # Envoy counts twice what came while it asked whose body it is.
            link.sendall(bytes(FLOOR_BYTES // 2 - 1))
        assert posted(waiting).json()["size"] == SIZE
        assert upstream.room.unsent == 0
        # Its own is given back behind the answer.
        until(lambda: upstream.room.served_bytes == 0)
        assert upstream.room.unsent == 0


def test_where_no_room_is_found_the_caller_is_told(
    waiting: Stack, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its dialect, with when to come again; the body is not read."""
    monkeypatch.setattr(upstream.room, "bounds", Bounds(unsent_of_account=0))
    room = full(upstream)
    before = read_bytes(waiting)
    with started(waiting, "/v1/chat/completions", "x-api-key: moa-known", length=SIZE) as link:
        link.sendall(bytes(FLOOR_BYTES))
        status, _ = answer_on(link)
    assert status == 429
    assert read_bytes(waiting) - before < READ
    upstream.run(room.aclose)


def test_a_chunked_body_is_read_at_once(waiting: Stack, upstream: Upstream) -> None:
    """Nobody knows how much room it needs before it is here; it takes room then, as where nobody keeps any."""
    body = b"[%s]" % (b" " * (SIZE - 2))
    headers = {"X-API-Key": "moa-known", "Content-Type": "application/json"}
    answer = requests.post(waiting.url + "/generate/text", data=iter([body]), headers=headers, timeout=TIMEOUT_S)
    assert answer.json()["size"] == SIZE
    until(lambda: upstream.room.served_bytes == 0)
