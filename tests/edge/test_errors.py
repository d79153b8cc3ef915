"""Failures leave the edge in the words of the route's dialect, with the right status."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from typing import Any

import pytest
import requests

from deploy.local.stack import Stack
from gateway.script import SENTENCES
from moa.common.v1 import error_pb2
from services.common import errors
from services.common.dialects import DIALECTS
from tests.dialects import ANSWERING, RIGS
from tests.edge.test_wire import exchanged
from tests.edge.upstream import Upstream

MESSAGE = 'a "quoted" \\ reason,\nover two lines, 이유 🙂 100%'


def post(edge: Stack, dialect: str, body: Any) -> requests.Response:
    rig = RIGS[dialect]
    if rig.is_query:  # what to do stands where the id does
        return requests.get(edge.url + rig.path, params={"task_id": json.dumps(body)}, timeout=20)
    return requests.post(edge.url + rig.path, json=body, timeout=20)


def rendered(dialect: str, word: str, message: str, answer: requests.Response | None = None, **more: Any) -> Any:
    request_id = "" if answer is None else answer.headers["x-request-id"]
    return DIALECTS[dialect].render(errors.BY_WORD[word](message, **more), request_id=request_id)


@pytest.mark.parametrize("dialect", RIGS)
@pytest.mark.parametrize("word", errors.BY_WORD)
def test_reason(edge: Stack, upstream: Upstream, dialect: str, word: str) -> None:
    """A service's failure has the same body and status as the dialect table renders, for every reason."""
    answer = post(edge, dialect, {"act": "fail", "reason": word, "message": MESSAGE})
    assert answer.json() == rendered(dialect, word, MESSAGE, answer)
    assert answer.status_code == DIALECTS[dialect].status(errors.BY_WORD[word].reason)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    leaked = [name for name in answer.headers if name.lower().startswith(("grpc-", "x-moa-", "x-envoy-"))]
    assert leaked == []


@pytest.mark.parametrize("dialect", RIGS)
def test_field_and_retry(edge: Stack, upstream: Upstream, dialect: str) -> None:
    """The field at fault and the time to wait reach the caller."""
    asked = {"act": "fail", "reason": "rate_limited", "message": "slow down", "param": "입력[0]", "retry_after_s": 2.4}
    answer = post(edge, dialect, asked)
    assert answer.json() == rendered(dialect, "rate_limited", "slow down", answer, param="입력[0]")
    assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize("dialect", [name for name in RIGS if name != "task_query"])  # a read, which may be made twice
def test_what_a_stopping_router_begins_no_more_is_asked_again(edge: Stack, upstream: Upstream, dialect: str) -> None:
    """It resets what has arrived in gRPC's own words; a call that was cancelled in other words may have been served."""
    answer = post(edge, dialect, {"act": "cancel", "times": 2, "message": "CANCELLED"})
    assert (answer.status_code, upstream.held.calls) == (200, 3)
    upstream.held.reset()
    answer = post(edge, dialect, {"act": "cancel", "times": 2, "message": "the request was cancelled"})
    assert (answer.status_code, upstream.held.calls) == (499, 1)


@pytest.mark.parametrize("dialect", RIGS)
@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("RESOURCE_EXHAUSTED", "too_large"),
        ("UNAVAILABLE", "unavailable"),
        ("UNKNOWN", "internal"),
        ("INTERNAL", "internal"),
        ("UNIMPLEMENTED", "not_found"),
        ("DEADLINE_EXCEEDED", "deadline_exceeded"),
    ],
)
def test_status_without_reason(edge: Stack, upstream: Upstream, dialect: str, code: str, word: str) -> None:
    """A bare gRPC status is worded by the edge, and its own prose stays inside."""
    answer = post(edge, dialect, {"act": "bare", "code": code, "message": "a secret detail"})
    assert answer.status_code == DIALECTS[dialect].status(errors.BY_WORD[word].reason)
    assert "secret" not in answer.text
    code_of = RIGS[dialect].code
    assert code_of(answer.json()) == code_of(rendered(dialect, word, ""))


def test_crash(edge: Stack, upstream: Upstream) -> None:
    """A bug tells the request's id and nothing else."""
    answer = post(edge, "native", {"act": "crash"})
    assert answer.status_code == 500
    assert answer.json() == {
        "detail": f"internal error (request {answer.headers['x-request-id']})",
        "code": "internal",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "dialect"),
    [
        ("GET", "/no/such/path", 404, "not_found", "native"),
        ("POST", "/", 404, "not_found", "native"),
        ("GET", "/v1/nothing", 404, "not_found", "openai"),
        ("GET", "/generate/text", 405, "method_not_allowed", "native"),
        ("DELETE", "/providers", 405, "method_not_allowed", "native"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed", "openai"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed", "openai"),
        ("POST", "/v1/models/some/model", 405, "method_not_allowed", "openai"),
        ("POST", "/v1/models/some:embedEverything", 404, "NOT_FOUND", "google"),
        ("POST", "/v1beta/models/some:embedEverything", 404, "NOT_FOUND", "google"),
        ("GET", "/moa.router.v1.NativeService/GenerateText", 404, "not_found", "native"),
        ("GET", "/generate/text/", 404, "not_found", "native"),
    ],
)
def test_routes(edge: Stack, method: str, path: str, status: int, code: str, dialect: str) -> None:
    """An unknown path is 404 and a wrong method 405, in the dialect that the path belongs to."""
    answer = requests.request(method, edge.url + path, timeout=20)
    assert answer.status_code == status
    body = answer.json()
    assert RIGS[dialect].code(body) == code
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1/chat/completions//?x=1", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/models", "GET /v1/models"),
        ("/responses", "/v1/responses"),
        ("/providers/", "GET /providers"),
        ("/v1/nothing/models/some:generateContent", "/v1/models/some:generateContent"),
        ("/v1beta/v1beta/models/some:generateContent", "/v1beta/models/some:generateContent"),
        ("/openai/deployments/some/chat/completions/", "/openai/deployments/some/chat/completions"),
        ("/generate/text/", "/generate/text"),
    ],
)
def test_a_slip_in_a_path_is_answered_with_the_right_one(edge: Stack, path: str, right: str) -> None:
    """No version, two of them, a prefix too many, a slash at the end: the refusal says which path to use."""
    answer = requests.post(edge.url + path, json={}, timeout=20)
    assert answer.status_code == 404
    body = answer.json()
    told = body["detail"] if "detail" in body else body["error"]["message"]
    assert told == f"no such path; use {right}"


@pytest.mark.parametrize(
    ("path", "dialect", "step"),
    [
        ("/no/such/path", "native", "GET /openapi.json"),
        ("/v1/nothing", "openai", "GET /openapi.json"),
        ("/chat/completions%22", "native", "GET /openapi.json"),
        ("/" + "x" * 300 + "/v1/models", "native", "GET /openapi.json"),
        ("/v1/responses/resp_1/none", "responses", "use POST /v1/responses"),
        ("/v1/responses/compact", "responses", "conversations are not shortened"),
        ("/openai/deployments/some/completions", "native", "use POST /v1/chat/completions"),
        ("/v1/completions", "openai", "use POST /v1/chat/completions"),
        ("/v1/messages/none", "anthropic", "use POST /v1/messages"),
        ("/v1/chat/completions/some", "openai", "answers are not kept"),
        ("/v1/audio/transcriptions", "openai", "input_audio"),
        ("/v1/moderations", "openai", "use POST /v1/chat/completions"),
        ("/v1/vector_stores/some/files", "openai", "/v1/embeddings"),
        ("/v1/models/some:predict", "google", "methods are generateContent"),
        ("/v1beta/models/some:generateContnt", "google", "methods are generateContent"),
        ("/v1beta/cachedContents", "google", "send them with each request"),
        ("/v1beta/files", "google", "inlineData"),
        ("/upload/v1beta/files", "google", "inlineData"),
        ("/v1beta/interactions", "google", ":generateContent"),
        ("/v1beta/tunedModels/some", "google", "/v1beta/models"),
        ("/v1beta/batches", "google", "one by one"),
        ("/v1/tunedModels", "openai", "models are not tuned here"),
        ("/v1alpha/authTokens", "google", "POST /account/keys"),
    ],
)
def test_a_path_that_is_not_served_is_answered_with_what_to_do_instead(
    edge: Stack, path: str, dialect: str, step: str
) -> None:
    """Vendors' paths that this gateway has not, in their vendor's words; all others are told where paths are listed."""
    answer = requests.post(edge.url + path, json={}, timeout=20)
    assert answer.status_code == 404
    assert answer.headers["x-should-retry"] == "false"
    body = answer.json()
    message = body["detail"] if dialect == "native" else body["error"]["message"]
    assert message.startswith("no such path; ")
    assert step in message
    assert body == rendered(dialect, "not_found", message, answer)


@pytest.mark.parametrize(("dialect", "header"), [("google", "x-goog-api-key"), ("anthropic", "anthropic-version")])
def test_a_client_is_refused_in_its_words_on_the_shared_version(edge: Stack, dialect: str, header: str) -> None:
    """A header of its own tells whose path `/v1/…` is."""
    answer = requests.get(edge.url + "/v1/cachedContents", headers={header: "k"}, timeout=20)
    message = answer.json()["error"]["message"]
    assert answer.json() == rendered(dialect, "not_found", message, answer)


def test_anthropics_answers_have_the_requests_id_in_its_header(edge: Stack, upstream: Upstream) -> None:
    """A refusal of a service, one of the edge's own and an answer carry `request-id`; other dialects' have none."""
    refused = post(edge, "anthropic", {"act": "fail", "reason": "malformed", "message": "no"})
    strange = requests.post(edge.url + "/v1/messages/none", json={}, timeout=20)
    listed = requests.get(edge.url + "/v1/models", headers={"anthropic-version": "2023-06-01"}, timeout=20)
    for answer in (refused, strange, listed):
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert "request-id" not in post(edge, "openai", {"act": "fail", "reason": "malformed", "message": "no"}).headers


@pytest.mark.parametrize("dialect", RIGS)
@pytest.mark.parametrize(
    ("word", "wait_s", "told"),
    [
        ("model_not_found", None, "false"),
        ("quota_exhausted", None, "false"),
        ("quota_exhausted", 3600.0, "false"),
        ("quota_exhausted", 27.0, None),
        ("queue_full", None, None),
    ],
)
def test_clients_are_told_what_not_to_send_again(
    edge: Stack, upstream: Upstream, dialect: str, word: str, wait_s: float | None, told: str | None
) -> None:
    """OpenAI's clients would send what is over its quota three times; what is free again within a minute they may."""
    asked = {"act": "fail", "reason": word, "message": "no"}
    answer = post(edge, dialect, asked if wait_s is None else {**asked, "retry_after_s": wait_s})
    assert answer.headers.get("x-should-retry") == told


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/providers", "GET"),
        ("PUT", "/account/keys/some", "DELETE or PATCH"),
        ("POST", "/models/some:generateContent", "/v1/models/some:generateContent"),
        ("POST", "/v1/models/v1/chat/completions", "/v1/chat/completions"),
        ("PATCH", "/admin/teams/team_0", "/account/teams/team_0"),
        ("DELETE", "/account/teams/team_0", "/admin/teams/team_0"),
    ],
)
def test_a_wrong_method_is_answered_with_the_right_one(edge: Stack, method: str, path: str, right: str) -> None:
    """A slip may be a path of another method: then the path is told that takes the caller's, else the methods."""
    answer = requests.request(method, edge.url + path, timeout=20)
    assert answer.status_code == 405
    body = answer.json()
    told = body["detail"] if "detail" in body else body["error"]["message"]
    assert told == f"this path does not take that method; use {right}"


def test_head(edge: Stack) -> None:
    """HEAD is GET without the body, where there is a GET; the connection stays usable, refused or answered."""
    with requests.Session() as session:
        for path, status in (("/providers", 200), ("/generate/text", 405), ("/no/such", 404)):
            answer = session.head(edge.url + path, timeout=20)
            assert (answer.status_code, answer.content) == (status, b"")
            assert session.get(edge.url + "/providers", timeout=20).json() == {"providers": []}
        assert session.post(edge.url + "/providers", timeout=20).headers["allow"] == "GET, HEAD"


def test_a_tunnel_is_refused_at_once(edge: Stack) -> None:
    """CONNECT has no body that would be waited for."""
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as link:
        link.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        answer = HTTPResponse(link)
        answer.begin()
        assert answer.status == 405
        assert json.loads(answer.read()) == rendered(
            "native", "method_not_allowed", SENTENCES[error_pb2.REASON_METHOD_NOT_ALLOWED]
        )


LIMIT_BYTES = 20 * 2**20


def begun(edge: Stack, path: str, *headers: str) -> socket.socket:
    """Send a request's head."""
    link = socket.create_connection(("127.0.0.1", edge.port), timeout=20)
    link.sendall("\r\n".join((f"POST {path} HTTP/1.1", "host: x", *headers, "", "")).encode())
    return link


def is_too_large(link: socket.socket, dialect: str) -> None:
    """Read a refusal, with the request's id where the dialect has it."""
    answer = HTTPResponse(link)
    answer.begin()
    body = json.loads(answer.read(answer.length))
    assert answer.status == 413
    code = RIGS[dialect].code
    assert code(body) == code(rendered(dialect, "too_large", ""))
    if dialect == "anthropic":
        assert answer.headers["request-id"] == answer.headers["x-request-id"] == body["request_id"]
    assert "the request body is too large; at most 20 MiB are taken here" in json.dumps(body)


def test_too_large_by_its_length(edge: Stack, upstream: Upstream) -> None:
    """A JSON body over 20 MiB and a form over 64 are 413 in each dialect, told before any of them is sent; nothing is
    passed on. All are asked at once: a caller that sends nothing is let wait for a moment."""
    json_head = ("content-type: application/json", f"content-length: {LIMIT_BYTES + 1}")
    form_head = ("content-type: multipart/form-data; boundary=b", f"content-length: {64 * 2**20 + 1}")
    with ExitStack() as closing:
        links = {dialect: closing.enter_context(begun(edge, RIGS[dialect].path, *json_head)) for dialect in ANSWERING}
        form = closing.enter_context(begun(edge, "/v1/images/edits", *form_head))
        for dialect, link in links.items():
            is_too_large(link, dialect)
        answer = HTTPResponse(form)
        answer.begin()
        assert (answer.status, json.loads(answer.read(answer.length))["error"]["code"]) == (413, "too_large")
    assert upstream.held.calls == 0


@pytest.mark.parametrize("dialect", ANSWERING)
def test_too_large_by_what_comes(edge: Stack, upstream: Upstream, dialect: str) -> None:
    """So it is where no length is told."""
    piece = b"x" * 2**20
    head = ("content-type: application/json", "transfer-encoding: chunked")
    with begun(edge, RIGS[dialect].path, *head) as link:
        with suppress(OSError):  # refused while sending; the answer is there already
            for _ in range(LIMIT_BYTES // len(piece) + 1):
                link.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        is_too_large(link, dialect)
    assert upstream.held.calls == 0


def test_just_fits(edge: Stack, upstream: Upstream) -> None:
    """A JSON body of exactly 20 MiB passes whole, and so does a multipart body of more."""
    whole = requests.post(
        edge.url + RIGS["native"].path,
        data=b"x" * (20 * 2**20),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert whole.json()["size"] == 20 * 2**20
    form = {"content-type": "multipart/form-data; boundary=b"}
    upload = requests.post(edge.url + "/v1/images/edits", data=b"x" * (30 * 2**20), headers=form, timeout=60)
    assert upload.json()["size"] == 30 * 2**20
    assert upload.json()["content_type"] == form["content-type"]


def test_bad_json(edge: Stack, upstream: Upstream) -> None:
    """Bytes that are no JSON reach the router whole, whose refusal is 400."""
    answer = requests.post(
        edge.url + RIGS["native"].path, data=b"{nope", headers={"content-type": "application/json"}, timeout=20
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_no_http(edge: Stack) -> None:
    """Bytes that are no HTTP are refused as JSON."""
    answer = exchanged(edge, b"\x16\x03\x01nonsense\r\n\r\n")
    assert b" 400 " in answer
    assert b'"code":"malformed"' in answer


def test_header_too_large(edge: Stack) -> None:
    """A huge header is refused as JSON, without Envoy's own words."""
    answer = requests.get(edge.url + "/providers", headers={"x-much": "y" * 100_000}, timeout=20)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"] in ("malformed", "too_large")
    assert "envoy" not in answer.text.lower()


def test_typed_binding(edge: Stack, upstream: Upstream) -> None:
    """A typed unary method answers and fails as the raw ones do; nothing of gRPC shows."""
    good = requests.get(edge.url + "/models/local-text", timeout=20)
    assert good.json() == {"models": ["local-text"], "states": {}, "facts": {}}
    assert not [name for name in good.headers if name.lower().startswith("grpc")]
    bad = requests.get(edge.url + "/models/absent", timeout=20)
    assert bad.status_code == 404
    assert bad.json() == {"detail": "unknown provider 'absent'", "code": "not_found"}
