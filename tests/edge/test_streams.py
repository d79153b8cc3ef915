"""Streams, cancellation and death across the edge."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.local.forked import Forked
from deploy.local.ports import Ports
from deploy.local.stack import Stack
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from tests import forking
from tests.edge.upstream import TIMEOUT_S, Upstream
from tests.edge.upstream import mortal as upstream_process


class AtOnce(http.client.HTTPConnection):
    """Sends a request in one piece: a pause between its head and its body is none of the caller's, however busy the
    machine."""

    _parts: list[Any] | None = None

    def send(self, data: Any) -> None:
        if self._parts is None:
            super().send(data)
        else:
            self._parts.append(data)

    def request(self, *args: Any, **more: Any) -> None:
        self._parts = []
        super().request(*args, **more)
        parts, self._parts = self._parts, None
        super().send(b"".join(parts))


def opened(edge: Stack, path: str, body: object) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    link = AtOnce("127.0.0.1", edge.port, timeout=TIMEOUT_S)
    link.request("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
    return link, link.getresponse()


@pytest.mark.parametrize("path", ["/generate/text", "/v1/chat/completions"])
def test_events_arrive_as_they_are_made(edge: Stack, upstream: Upstream, path: str) -> None:
    """Each event is out before the next one is made: the router holds it until the last one was read."""
    upstream.held.go.release()
    link, answer = opened(edge, path, {"act": "sse", "events": 4, "held": True})
    assert answer.getheader("content-type") == "text/event-stream"
    for number in range(4):
        assert answer.readline() == f'data: {{"response": "{number}"}}\n'.encode()
        assert answer.readline() == b"\n"
        upstream.held.go.release()
    assert answer.read() == b""
    link.close()


@pytest.mark.parametrize("begin", [False, True])
def test_leaving_cancels(edge: Stack, upstream: Upstream, begin: bool) -> None:
    """A caller that leaves, before the first byte or after it, cancels the call behind the edge."""
    link = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=TIMEOUT_S)
    body = json.dumps({"act": "hang", "begin": begin})
    link.request("POST", "/generate/text", body, {"content-type": "application/json"})
    assert upstream.held.entered.wait(TIMEOUT_S)
    if begin:
        assert link.getresponse().readline() == b"data: 0\n"
    assert link.sock is not None
    link.sock.close()
    link.close()
    assert upstream.held.cancelled.wait(TIMEOUT_S)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[tuple[Stack, Forked | subprocess.Popen[bytes]]]:
    """An edge in front of a router that is a process of its own."""
    port = Ports().any()
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{port}", "MOA_EDGE_RETRIES": "2"}
    with (
        upstream_process(port) as process,
        Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as stack,
    ):
        yield stack, process


def test_death(mortal: tuple[Stack, Forked | subprocess.Popen[bytes]]) -> None:
    """A router killed mid-stream breaks the stream visibly; then it is 503 in each dialect, with Retry-After."""
    edge, process = mortal
    link, answer = opened(edge, "/generate/text", {"act": "hang", "begin": True})
    assert answer.readline() == b"data: 0\n"
    process.kill()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    link.close()
    for path in ("/generate/text", "/v1/chat/completions"):
        link, answer = opened(edge, path, {})
        body = json.loads(answer.read())
        assert (answer.status, answer.getheader("retry-after")) == (503, "1")
        assert (body["error"] if "v1" in path else body)["code"] == "unavailable"
        assert "upstream" not in json.dumps(body)
        link.close()
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        stub = text_service_pb2_grpc.TextServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.CountTokens(text_service_pb2.CountTokensRequest(), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "a part of the gateway is not reachable; try again"
