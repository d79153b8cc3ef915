"""An edge of two processes: one dies, or both get another configuration, and no caller is refused."""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from deploy.local import once
from deploy.local.stack import REPOSITORY, Stack, StackError
from tests import waiting
from tests.edge.test_streams import opened
from tests.edge.upstream import TIMEOUT_S, Upstream


@pytest.fixture(scope="module")
def pair(_running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The edge alone, of two processes, calling `upstream`."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{_running.port}"}
    root: Path = tmp_path_factory.mktemp("pair")
    with Stack(root, processes=["edge"], environment=environment, workers={"edge": 2}) as stack:
        yield stack


def envoys(stack: Stack) -> set[int]:
    """Return the ids of Envoy's processes that run."""
    children = psutil.Process(stack.pid("edge")).children()
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for a condition of other processes."""
    end, pauses = time.monotonic() + TIMEOUT_S, waiting.pauses()
    while not true():
        assert time.monotonic() < end, what
        time.sleep(next(pauses))


@contextmanager
def connecting(stack: Stack) -> Iterator[Counter[str]]:
    """Open connections one after another, each for one request; yield what became of them: `ok`, `refused` when nobody
    took one, `broken` when it ended without an answer."""
    seen: Counter[str] = Counter()
    over = threading.Event()
    ask = b"GET /health HTTP/1.1\r\nHost: moa\r\nConnection: close\r\n\r\n"

    def connect() -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", stack.port), timeout=TIMEOUT_S) as link:
                    link.sendall(ask)
                    seen["ok" if link.recv(64).startswith(b"HTTP/1.1 200") else "broken"] += 1
            except ConnectionRefusedError:
                seen["refused"] += 1
            except OSError:
                seen["broken"] += 1

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def of(stack: Stack, metrics: str) -> int:
    """Return how many connections of callers one process has."""
    name = 'envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="public"} '
    end = time.monotonic() + TIMEOUT_S
    while True:
        told = requests.get(f"{stack.internal_url}/metrics/{metrics}", timeout=TIMEOUT_S).text
        for line in told.splitlines():
            if line.startswith(name):
                return int(line.rpartition(" ")[2])
        # One that is just being started has none to tell.
        assert time.monotonic() < end, f"{metrics} tells of no connections: {told[:300]}"
        time.sleep(0.05)


def hanging(stack: Stack) -> http.client.HTTPConnection:
    """Begin a stream that says one thing and then nothing; return its connection."""
    link, answer = opened(stack, "/generate/text", {"act": "hang", "begin": True})
    assert answer.readline() == b"data: 0\n"
    return link


def is_broken(link: http.client.HTTPConnection) -> bool:
    """Return whether a stream that says nothing has ended."""
    return bool(select.select([link.sock], [], [], 0)[0])


def test_one_dies_and_no_connection_is_refused(pair: Stack, upstream: Upstream) -> None:
    """kill -9 of one process under a storm of connections: what it served breaks where its caller sees it, streams at
    the other go on, nobody is refused, and two are there again."""
    before = envoys(pair)
    assert len(before) == 2
    links = [hanging(pair)]
    while not (of(pair, "edge") and of(pair, "edge-2")):
        # The kernel chooses by the port of the caller's end.
        links.append(hanging(pair))
    with connecting(pair) as seen:
        until(lambda: seen["ok"] > 20, "nobody is answered")
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(envoys(pair) - {min(before)}) == 2, "the killed process did not come back")
        answered = seen["ok"]
        until(lambda: seen["ok"] > answered + 20, "nobody is answered any more")
    assert seen["refused"] == 0
    assert {is_broken(link) for link in links} == {True, False}
    for link in links:
        link.close()


def test_another_configuration_comes_without_an_end(pair: Stack, upstream: Upstream) -> None:
    """A smaller limit on bodies is brought in under a storm of connections: nobody is refused or cut off, a stream
    that runs goes on to its end, both processes stay and both obey. What Envoy refuses changes nothing."""
    before, large = envoys(pair), {"filler": "x" * 100_000}
    upstream.held.go.release()
    link, answer = opened(pair, "/generate/text", {"act": "sse", "events": 2, "held": True})
    assert answer.readline() == b'data: {"response": "0"}\n'
    assert asked(pair, large) == {200}
    with connecting(pair) as seen:
        until(lambda: seen["ok"] > 20, "nobody is answered")
        pair.reload({"MOA_JSON_LIMIT_BYTES": "90000"})
        answered = seen["ok"]
        until(lambda: seen["ok"] > answered + 20, "nobody is answered any more")
    assert (seen["refused"], seen["broken"]) == (0, 0)
    assert envoys(pair) == before
    assert asked(pair, large) == {413}
    upstream.held.go.release()
    assert answer.read().count(b"data: ") == 1
    link.close()
    # As in a container, which names no contracts: they are looked for where the command was begun.
    beside = {**pair.plan.environment("edge", ""), "MOA_DESCRIPTORS": "build/moa.binpb"}
    once.run("gateway", "--reload", environment=beside, folder=REPOSITORY)
    bad = pair.root / "bad.pem"
    bad.write_text("no certificate")
    with pytest.raises(StackError, match="refused the configuration"):
        pair.reload({"MOA_TLS_CERT": str(bad), "MOA_TLS_KEY": str(bad)})
    assert asked(pair, large, url=f"http://127.0.0.1:{pair.port}") == {413}


def asked(stack: Stack, body: object, *, url: str = "") -> set[int]:
    """Ask over many connections, which both processes get some of; return the statuses."""
    key = {"X-API-Key": "moa-known"}
    url = url or stack.url
    return {requests.post(f"{url}/generate/text", json=body, headers=key, timeout=20).status_code for _ in range(12)}
