"""Headers that HTTP allows and gRPC does not."""

from __future__ import annotations

import http.client
import json

import pytest

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream

ODD = [
    ("$h", "x"),
    ("%bTq", "x"),
    ("*", "x"),
    ("+r1", "x"),
    ("it's", "x"),
    ("x-bin", "not base64 ***"),
    ("grpc-timeout", "soon"),
    ("grpc-encoding", "nothing"),
    ("x-latin", "caf\xe9"),
    ("x-tab", "a\tb"),
]


@pytest.mark.parametrize(("name", "value"), ODD, ids=[name for name, _ in ODD])
def test_an_odd_header_does_no_harm(edge: Stack, upstream: Upstream, name: str, value: str) -> None:
    """It is dropped, and the call goes on; ordinary ones beside it arrive."""
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
    headers = {"content-type": "application/json", "x-ordinary_1.a": "kept ~ !", name: value}
    connection.request("POST", "/generate/text?a=b", body=b"{}", headers=headers)
    answer = connection.getresponse()
    seen = json.loads(answer.read())
    connection.close()
    assert answer.status == 200
    assert seen["metadata"]["x-ordinary_1.a"] == "kept ~ !"
    assert name not in seen["metadata"]


@pytest.mark.parametrize("name", ["idempotency-key", "moa-tags", "moa-fallback", "moa-parameters", "moa-max-wait"])
def test_a_header_that_says_what_to_do_is_not_dropped(edge: Stack, upstream: Upstream, name: str) -> None:
    """What gRPC cannot carry of it is refused in the dialect's words: no request is done twice for want of its key."""
    for path, field in ("/generate/text", None), ("/v1/chat/completions", "error"):
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
        headers: dict[str, str | bytes] = {"content-type": "application/json", name: "시험".encode()}
        connection.request("POST", path, body=b"{}", headers=headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        assert answer.status == (422 if field is None else 400)
        message = f"{name} takes printable ASCII characters alone; write it in them"
        if field is None:
            assert told == {"detail": message, "code": "invalid_field"}
        else:
            assert (told[field]["message"], told[field]["param"]) == (message, name)


def test_a_long_header_passes(edge: Stack, upstream: Upstream) -> None:
    """Cookies of a shared domain, say: what the edge lets in, the services take."""
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
    headers = {"content-type": "application/json", "x-long": "a" * 40_000}
    connection.request("POST", "/generate/text", body=b"{}", headers=headers)
    answer = connection.getresponse()
    seen = json.loads(answer.read())
    connection.close()
    assert (answer.status, len(seen["metadata"]["x-long"])) == (200, 40_000)


def test_an_unknown_transfer_coding_is_the_callers_mistake(edge: Stack, upstream: Upstream) -> None:
    """400, not the 503 of a part that is away."""
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
    connection.request("POST", "/generate/text", headers={"transfer-encoding": "gzip, chunked"})
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (400, "malformed")
    connection.close()
