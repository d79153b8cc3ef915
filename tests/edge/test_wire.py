"""HTTP/1.1 byte by byte: where an answer ends, and requests that can be read in two ways."""

from __future__ import annotations

import json
import socket

import pytest

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream

PATHS = ["/nowhere", "/generate/text", "/models/absent", "/v1/chat/completions", "/v1beta/models/m:generateContent"]


def exchanged(edge: Stack, request: bytes) -> bytes:
    """Send bytes; give all that comes until the edge closes the connection."""
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_of_a_head_request_has_no_body(edge: Stack, upstream: Upstream, path: str) -> None:
    """Only its headers: what follows on the connection is the next request's answer, from its first byte on."""
    head = f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    get = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = exchanged(edge, head + get)
    first, _, rest = answers.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 40")
    assert int(first.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) > 0
    assert rest.startswith(b"HTTP/1.1 404 ")
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["code"] == "not_found"


@pytest.mark.parametrize("path", ["/generate/text", "/nowhere", "/moa.text.v1.TextService/GenerateText"])
@pytest.mark.parametrize("hosts", [("a", "b"), ("a", "a"), ("a,b",)], ids=["two", "twice", "joined"])
def test_a_request_with_two_hosts_is_not_read(
    edge: Stack, upstream: Upstream, path: str, hosts: tuple[str, ...]
) -> None:
    """RFC 9112, 3.2: 400, for REST and gRPC-Web callers alike; nobody behind the edge hears of it."""
    kind = "application/grpc-web+proto" if "TextService" in path else "application/json"
    lines = [f"POST {path} HTTP/1.1", *(f"Host: {host}" for host in hosts), f"Content-Type: {kind}"]
    request = "\r\n".join([*lines, "Content-Length: 2", "Connection: close", "", "{}"])
    status, _, rest = exchanged(edge, request.encode()).partition(b"\r\n")
    # A gRPC-Web caller's status is in its headers.
    assert b" 400 " in status or b"grpc-status: " in rest
    assert upstream.held.calls == 0
