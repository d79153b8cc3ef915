"""Measure a caller's latency beside 200 connections whose bodies do not end: `python -m bench.stalled`."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import statistics
import tempfile
import time
from pathlib import Path

import structlog

from deploy.local.stack import Stack
from tests.edge.upstream import TIMEOUT_S, Upstream

_ROUNDS = 3
_REQUESTS = 500
_STALLED = 200


def main() -> None:
    """Print the p95 of a caller with a key, alone and beside stalled ones."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with Upstream() as upstream, tempfile.TemporaryDirectory() as folder:
        environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}"}
        with Stack(Path(folder), processes=["edge"], environment=environment) as edge:
            _p95_ms(edge.port)
            for _ in range(_ROUNDS):
                quiet = _p95_ms(edge.port)
                with contextlib.ExitStack() as stalled:
                    for _ in range(_STALLED):
                        stalled.enter_context(_stalled(edge.port))
                    beside = _p95_ms(edge.port)
                print(
                    f"p95 quiet {quiet:.2f} ms, beside {_STALLED} stalled bodies {beside:.2f} ms: {beside / quiet:.2f}"
                )


def _stalled(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    link.setblocking(False)
    head = (
        b"POST /account/login HTTP/1.1\r\nhost: moa\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n"
    )
    with contextlib.suppress(BlockingIOError):
        link.send(head + bytes(59_000))
    return link


def _p95_ms(port: int) -> float:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    taken = []
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        link.request("POST", "/generate/text", b"{}", {"content-type": "application/json", "x-api-key": "moa-known"})
        answer = link.getresponse()
        answer.read()
        assert answer.status == 200
        taken.append((time.perf_counter() - began) * 1000)
    link.close()
    return statistics.quantiles(taken, n=20)[-1]


if __name__ == "__main__":
    main()
