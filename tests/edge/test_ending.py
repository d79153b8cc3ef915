"""The end of the edge: asked to stop, and killed."""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY, Stack
from tests import forking
from tests.edge.test_streams import opened
from tests.edge.upstream import TIMEOUT_S, Upstream


@contextmanager
def edge_of(upstream: Upstream, root: Path, drain_s: str) -> Iterator[Stack]:
    """Run an edge of one's own, to be ended."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}", "MOA_DRAIN_S": drain_s}
    with Stack(root, processes=["edge"], start=forking.spawn, environment=environment) as stack:
        yield stack


def until_refused(port: int) -> None:
    """Return once nobody listens at a port."""
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S).close()
        except ConnectionRefusedError:
            return
        except OSError:
            pass
        assert time.monotonic() < until, "the port stayed open"
        time.sleep(0.01)


def envoy(stack: Stack) -> int:
    """Return Envoy's process id."""
    keeper = stack.pid("edge")
    assert keeper is not None
    (child,) = psutil.Process(keeper).children()
    return int(child.pid)


def test_a_stop_lets_streams_end(upstream: Upstream, tmp_path: Path) -> None:
    """While a stream runs on, new connections are refused; it ends cleanly, and only then does the edge."""
    with edge_of(upstream, tmp_path, "60") as stack:
        upstream.held.go.release()
        link, answer = opened(stack, "/generate/text", {"act": "sse", "events": 3, "held": True})
        assert answer.readline() == b'data: {"response": "0"}\n'
        stopping = threading.Thread(target=stack.stop)
        stopping.start()
        until_refused(stack.port)
        assert stopping.is_alive()
        upstream.held.go.release(2)
        assert answer.read().count(b"data: ") == 2
        link.close()
        stopping.join(TIMEOUT_S)
        assert not stopping.is_alive()


def test_a_stop_has_an_end(upstream: Upstream, tmp_path: Path) -> None:
    """A stream that goes on for longer than MOA_DRAIN_S is cut where its caller sees it."""
    with edge_of(upstream, tmp_path, "0.3") as stack:
        link, answer = opened(stack, "/generate/text", {"act": "hang", "begin": True})
        assert answer.readline() == b"data: 0\n"
        stack.stop()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        link.close()


@pytest.mark.parametrize("whom", ["envoy", "keeper"])
def test_a_kill_breaks_streams_visibly(upstream: Upstream, tmp_path: Path, whom: str) -> None:
    """Envoy or its keeper killed with -9: the stream breaks, the call behind it is cancelled, the edge comes back. The
    keeper outlives Envoy and starts it again, but not the other way round."""
    with edge_of(upstream, tmp_path, "1") as stack:
        link, answer = opened(stack, "/generate/text", {"act": "hang", "begin": True})
        assert answer.readline() == b"data: 0\n"
        keeper, child = stack.pid("edge"), envoy(stack)
        assert keeper is not None
        ends = [os.pidfd_open(pid) for pid in ((child,) if whom == "envoy" else (keeper, child))]
        os.kill(child if whom == "envoy" else keeper, signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        link.close()
        assert upstream.held.cancelled.wait(TIMEOUT_S)
        for descriptor in ends:
            assert select.select([descriptor], [], [], TIMEOUT_S)[0], "one outlived the other"
            os.close(descriptor)
        stack.await_ready("edge")
        assert (stack.pid("edge") == keeper) is (whom == "envoy")
        link, answer = opened(stack, "/generate/text", {})
        assert answer.status == 200
        link.close()


def test_a_taken_port_is_said(upstream: Upstream, tmp_path: Path) -> None:
    """Two edges never share a port in silence: the second ends with a sentence."""
    with edge_of(upstream, tmp_path / "one", "0") as stack:
        taken, free = stack.port, Ports().any()
        for public, internal in ((taken, free), (free, int(stack.internal_url.rpartition(":")[2]))):
            environment = {
                **os.environ,
                "PYTHONPATH": f"{REPOSITORY / 'gen'}:{REPOSITORY}",
                "MOA_LISTEN": f"127.0.0.1:{public}",
                "MOA_INTERNAL_LISTEN": f"127.0.0.1:{internal}",
                "MOA_EDGE_DIR": str(tmp_path / "two"),
            }
            done = subprocess.run(
                [sys.executable, "-m", "gateway"],
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1
            assert "the edge cannot listen on 127.0.0.1:" in done.stderr
            assert "Traceback" not in done.stderr
