"""What the edge does to a request on its way in."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests

from deploy.local.stack import Stack
from tests import forking
from tests.edge.upstream import FAULT, Upstream

CURL = subprocess.run(["curl", "-V"], capture_output=True, text=True, check=True).stdout if shutil.which("curl") else ""


def seen(edge: Stack, *, path: str = "/generate/text", headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = requests.post(edge.url + path, json={}, headers=headers, timeout=20)
    answer.raise_for_status()
    metadata: dict[str, Any] = answer.json()["metadata"]
    return metadata


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        ("?key=moa-abc", None, "moa-abc"),
        ("?alt=sse&key=moa-abc&x=1", None, "moa-abc"),
        ("?key=moa%2Dabc", None, "moa-abc"),
        ("?key=moa-abc", "moa-abc", "moa-abc"),
        ("?key=moa-abc", "moa-other", "moa-other,moa-abc"),
        ("?key=one&key=two", None, "one,two"),
        ("?key=", None, ""),
        ("?monkey=1", None, None),
        ("", "moa-other", "moa-other"),
    ],
)
def test_query_key(edge: Stack, upstream: Upstream, query: str, header: str | None, expected: str | None) -> None:
    """A key in the query becomes the header that it stands for; with another one beside it, neither is valid."""
    headers = {"x-goog-api-key": header} if header else {}
    assert seen(edge, path="/generate/text" + query, headers=headers).get("x-goog-api-key") == expected


def test_query_key_is_not_logged(edge: Stack, upstream: Upstream) -> None:
    """Neither a query's key nor any other query reaches the access log."""
    answer = requests.post(f"{edge.url}/generate/text?key=moa-sesame&token=tulip", json={}, timeout=20)
    request_id = answer.headers["x-request-id"]
    missing = requests.get(f"{edge.url}/nowhere?key=moa-sesame", timeout=20)
    lines = logged(edge.log("edge"), request_id, missing.headers["x-request-id"])
    assert [line["path"] for line in lines] == ["/generate/text", "/nowhere"]
    assert [line["status"] for line in lines] == [200, 404]
    text = edge.log("edge").read_text()
    assert "sesame" not in text
    assert "tulip" not in text


def logged(log: Path, *request_ids: str) -> list[dict[str, Any]]:
    """Wait for the access lines of these requests: Envoy writes them in batches, which may end amid a line."""
    with log.open() as file:
        found: dict[str, dict[str, Any]] = {}
        line = ""
        while len(found) < len(request_ids):  # the test's own time limit ends this
            line += file.readline()
            if not line.endswith("\n"):
                time.sleep(0.01)
                continue
            if line.startswith("{"):
                entry = json.loads(line)
                if entry["request_id"] in request_ids:
                    found[entry["request_id"]] = entry
            line = ""
    return [found[request_id] for request_id in request_ids]


def test_internal_headers_are_stripped(edge: Stack, upstream: Upstream) -> None:
    """A caller cannot say what only Moa's own processes may say."""
    given = {"x-moa-service": "token", "X-Moa-Account": "root", "x-moa-anything": "1", "x-kept": "yes"}
    given["x-moa-body-bytes"] = "999"
    metadata = seen(edge, headers=given)
    assert metadata["x-kept"] == "yes"
    told = {name: value for name, value in metadata.items() if name.startswith("x-moa-")}
    assert told == {"x-moa-body-bytes": "2"}, "the edge's own, of the body that it read"


def test_envoy_headers_are_not_obeyed(edge: Stack, upstream: Upstream) -> None:
    """A caller's own retry and timeout wishes for Envoy are dropped: a replay would be charged twice."""
    wishes = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "5", "x-envoy-upstream-rq-timeout-ms": "1"}
    body = {"act": "bare", "code": "UNAVAILABLE", "message": "no"}
    answer = requests.post(edge.url + "/generate/text", json=body, headers=wishes, timeout=20)
    assert answer.status_code == 503
    assert upstream.held.calls == 1


LONGEST = "!~" * 64


@pytest.mark.parametrize("given", ["mine", LONGEST, 'a"},{"event":"forged"'], ids=["short", "longest", "JSON"])
def test_a_callers_request_id_is_kept(edge: Stack, upstream: Upstream, given: str) -> None:
    """Up to 128 visible ASCII characters are told to the router, to the caller and to the log, as one value."""
    answer = requests.post(edge.url + "/generate/text", json={}, headers={"x-request-id": given}, timeout=20)
    assert answer.json()["metadata"]["x-request-id"] == answer.headers["x-request-id"] == given
    assert logged(edge.log("edge"), given)[0]["path"] == "/generate/text"
    whole, _, _ = edge.log("edge").read_text().rpartition("\n")
    lines = [line for line in whole.splitlines() if "forged" in line]
    assert all(json.loads(line)["event"] == "request.finished" for line in lines)


@pytest.mark.parametrize(
    "given", ["", LONGEST + "!", "a b", "a\tb", "caf\xe9", None], ids=["empty", "long", "space", "tab", "latin", "none"]
)
def test_any_other_request_id_is_replaced(edge: Stack, upstream: Upstream, given: str | None) -> None:
    """Every request has an id: the gateway's own where the caller's is none. The inner name is not obeyed."""
    inner = {"x-moa-callers-request-id": "inner"}
    headers = inner if given is None else {**inner, "x-request-id": given}
    answer = requests.post(edge.url + "/generate/text", json={}, headers=headers, timeout=20)
    told = answer.json()["metadata"]["x-request-id"]
    assert told == answer.headers["x-request-id"] == str(UUID(told))


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/moa-tiny-chat", "moa-tiny-chat"),
        ("/v1/models/local-text/moa-tiny-chat", "local-text/moa-tiny-chat"),
        ("/v1/models/local-text%2Fmoa-tiny-chat", "local-text/moa-tiny-chat"),
        ("/v1/models/anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("/v1/models/anthropic.claude-v1%3A0", "anthropic.claude-v1:0"),
        ("/v1/models/wanted?model=evil", "wanted"),
        ("/v1/models/wanted?key=moa-a&alt=sse&unknown=1", "wanted"),
    ],
)
def test_model_paths(edge: Stack, upstream: Upstream, path: str, model: str) -> None:
    """Model ids arrive whole, percent-encoded or not, and no query parameter overrides the path."""
    answer = requests.get(edge.url + path, timeout=20)
    assert (answer.status_code, answer.json().get("id")) == (200, model)


def test_body_arrives_untouched(edge: Stack, upstream: Upstream) -> None:
    """The body's bytes are the router's to judge: raw newlines inside a string pass, a query cannot replace them."""
    raw = '{"prompt": "줄\n바꿈 🙂"}'.encode()
    answer = requests.post(
        f"{edge.url}/generate/text?data=evil&content_type=evil",
        data=raw,
        headers={"content-type": "text/plain"},
        timeout=20,
    )
    assert answer.json()["size"] == len(raw)
    assert answer.json()["content_type"] == "text/plain"


def test_preflight(edge: Stack) -> None:
    """A browser on any origin may ask first, without a key."""
    asks = {
        "origin": "https://example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key, content-type",
    }
    answer = requests.options(edge.url + "/create/image", headers=asks, timeout=20)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] in ("*", "https://example.com")
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-api-key" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("body", [{}, {"act": "fail", "reason": "unauthenticated", "message": "no"}])
def test_cross_origin_answers(edge: Stack, upstream: Upstream, body: dict[str, str]) -> None:
    """A browser may read answers, failures too, with the headers that the contract names."""
    answer = requests.post(edge.url + "/generate/text", json=body, headers={"origin": "https://a.b"}, timeout=20)
    assert answer.headers["access-control-allow-origin"] in ("*", "https://a.b")
    exposed = answer.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("x-request-id", "x-moa-cost", "retry-after"))


def test_metrics(edge: Stack) -> None:
    """The internal listener gives the edge's own metrics; the public one does not."""
    own = requests.get(edge.internal_url + "/metrics/edge", timeout=20)
    assert "envoy_http_downstream_rq_total" in own.text
    assert requests.get(edge.url + "/metrics/edge", timeout=20).status_code == 404


@pytest.mark.parametrize("origin", [{}, {"origin": "https://a.b"}])
def test_files_are_every_origins(edge: Stack, upstream: Upstream, origin: dict[str, str]) -> None:
    """Whoever asks is told the same, so that a cache between may keep it."""
    answer = requests.get(edge.url + "/files/nothing", headers=origin, timeout=20)
    assert answer.headers["access-control-allow-origin"] == "*"


def test_health(edge: Stack, upstream: Upstream, tmp_path: Path) -> None:
    """The public port tells that the edge runs, and whether a router can be reached."""
    answer = requests.get(edge.url + "/health", timeout=20)
    assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (
        200,
        {"status": "ok"},
        "application/json",
    )
    others = {"facts_refused": False, "facts_fault": "", "journal_failed": False, "journal_fault": "", "missing": []}
    told = {"status": "ready", "catalogue_refused": True, "catalogue_fault": "", **others}
    for sent in ({}, {"x-moa-internal": "1"}):
        assert requests.get(edge.url + "/ready", headers=sent, timeout=20).json() == told
    assert requests.head(edge.url + "/ready", timeout=20).status_code == 200
    assert requests.get(edge.internal_url + "/ready", timeout=20).json() == {**told, "catalogue_fault": FAULT}
    assert requests.head(edge.internal_url + "/ready", timeout=20).status_code == 200
    assert requests.head(edge.url + "/health", timeout=20).content == b""


def test_trusted_hops(edge: Stack, upstream: Upstream, tmp_path: Path) -> None:
    """A caller's address is what it connects from; behind a proxy that is trusted, what the proxy says."""
    said = {"x-forwarded-for": "198.51.100.1, 203.0.113.7"}
    assert seen(edge, headers=said)["x-envoy-external-address"] == "127.0.0.1"
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{upstream.port}", "MOA_TRUSTED_HOPS": "1"}
    with Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment) as behind:
        assert seen(behind, headers=said)["x-envoy-external-address"] == "203.0.113.7"


def test_streams_pass_proxies(edge: Stack, upstream: Upstream) -> None:
    """Events are marked so that no proxy keeps them back or for later."""
    asked = {"act": "sse", "events": 1}
    answer = requests.post(edge.url + "/generate/text", json=asked, timeout=20)
    assert answer.headers["content-type"] == "text/event-stream"
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")


@pytest.mark.parametrize("path", ["/account/me", "/admin/accounts"])
def test_accounts_are_same_origin(edge: Stack, path: str) -> None:
    """A page of another origin may neither ask nor read where keys are shown."""
    asks = {"origin": "https://example.com", "access-control-request-method": "GET"}
    preflight = requests.options(edge.url + path, headers=asks, timeout=20)
    assert preflight.status_code == 405
    answer = requests.get(edge.url + path, headers={"origin": "https://example.com"}, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")  # nobody is behind it in this test
    for seen in (preflight, answer):
        assert "access-control-allow-origin" not in seen.headers


def test_json_on_a_grpc_path(edge: Stack) -> None:
    """JSON sent to a gRPC method is refused in words, not by a broken connection."""
    answer = requests.post(edge.url + "/moa.text.v1.TextService/GenerateText", json={}, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")


@pytest.mark.skipif("HTTP2" not in CURL, reason="needs a curl that speaks HTTP/2")
def test_no_trailers_over_http2(edge: Stack, upstream: Upstream) -> None:
    """A REST caller over HTTP/2 sees nothing of the gRPC call behind its answer."""
    command = ["curl", "-s", "--http2-prior-knowledge", "-D", "-", "-d", '{"act":"sse","events":1}', "-v"]
    command += ["-H", "content-type: application/json", edge.url + "/generate/text"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert 'data: {"response": "0"}' in done.stdout
    assert "grpc" not in done.stdout + done.stderr
