"""HTTP/1.1 byte by byte: where an answer ends, and requests that can be read in two ways."""

from __future__ import annotations

import json
import socket

import pytest

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream

PATHS = ["/nowhere", "/generate/text", "/models/absent", "/v1/chat/completions", "/v1beta/models/m:generateContent"]


def exchanged(edge: Stack, request: bytes) -> bytes:
    """Send bytes; give all that comes until the edge closes the connection.

    It says with its last answer that it will, and then waits for a second, or until its caller does.
    """
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
            if is_last(answer):
                connection.shutdown(socket.SHUT_WR)
    return answer


def is_last(answer: bytes) -> bool:
    """Return whether an answer is there whole with which the connection ends."""
    heads, ended, body = answer.lower().rpartition(b"\r\n\r\n")
    head = heads.rpartition(b"http/1.1 ")[2]
    told = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(ended and told) and b"\r\nconnection: close" in head and len(body) >= int(told)


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


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\rHost: x\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\rA: b\r\nC: d\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA\rb: c\r\n",
        b"GET /hea\rlth HTTP/1.1\r\nHost: x\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n",
        b"POST /generate/text HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r2\r\n",
        b"POST /generate/text HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chun\rked\r\n",
        b"POST /generate/text HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nA: b\nTransfer-Encoding: chunked\r\n",
    ],
    ids=["request line", "host", "name", "path", "space", "length", "coding", "coding behind a line feed"],
)
def test_a_head_that_can_be_read_in_two_ways(edge: Stack, upstream: Upstream, head: bytes) -> None:
    """A bare CR where it could part names, lines or framing, and framing told twice, are 400; nobody hears of it."""
    answer = exchanged(edge, head + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert upstream.held.calls == 0


@pytest.mark.parametrize(
    "body",
    [b"2\n{}\r\n0\r\n\r\n", b"2;a\n{}\r\n0\r\n\r\n", b"2;a\rb\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n"],
    ids=["size", "extension", "return", "data"],
)
def test_chunks_end_in_both_bytes(edge: Stack, upstream: Upstream, body: bytes) -> None:
    """A size, an extension or a chunk's data that a bare CR or LF ends is 400; nobody hears of it."""
    head = b"POST /generate/text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert exchanged(edge, head + body).startswith(b"HTTP/1.1 400 ")
    assert upstream.held.calls == 0


def test_a_bare_return_in_a_value_goes_no_further(edge: Stack) -> None:
    """Envoy takes it out before anything reads the value: it parts nothing, here or behind the edge."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: one\rtwo\r\nConnection: close\r\n\r\n"
    answer = exchanged(edge, head)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: onetwo\r\n" in answer
