"""Every reason in every dialect of the router: the status, the body, and what the official client raises."""

from __future__ import annotations

import importlib
import pkgutil

import openai
import pytest
import requests
from google import genai
from google.genai import errors as google_errors
from google.genai import types
from google.rpc import code_pb2

from moa.common.v1 import error_pb2
from services.common import dialects
from services.common.errors import BY_WORD, RULES, Cancelled, MoaError
from services.router import dialects as router_dialects
from tests import dialects as rigs
from tests.dialects import ANSWERING, RIGS
from tests.router.rig import KEY, Played, said, text

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")

MESSAGE = 'no: "x\\y"\n가 \x01'
PARAM = 'messages[0]."가"'
# Nobody is told that a call was cancelled: the caller has left.
KINDS = {name: kind for name, kind in BY_WORD.items() if kind is not Cancelled}


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("reason", KINDS)
def test_the_status_and_the_body(url: str, played: Played, reason: str, name: str) -> None:
    """The edge words a failure exactly as the one table says; the time to wait is in its header."""
    error = KINDS[reason](MESSAGE, param=PARAM, retry_after_s=7)
    played.refusal = error
    asked = ANSWERING[name].text("smart", "x")
    got = requests.post(url + asked.path, headers={"x-api-key": KEY}, timeout=60, **asked.how)
    dialect = dialects.DIALECTS[name]
    assert got.status_code == dialect.status(error.reason)
    assert got.json() == dialect.render(error, request_id=got.headers["x-request-id"])
    assert got.headers["retry-after"] == "7"
    assert got.headers["x-request-id"]
    assert got.headers["content-type"] == "application/json"


OPENAI_CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


@pytest.mark.parametrize("reason", KINDS)
def test_what_openais_client_raises(url: str, played: Played, reason: str) -> None:
    """The class that the client has for the status; its message, code, field and request id are ours."""
    played.refusal = KINDS[reason]("no", param="model")
    status = dialects.OPENAI.status(played.refusal.reason)
    kind = OPENAI_CLASSES.get(status) or (openai.InternalServerError if status >= 500 else openai.APIStatusError)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client, pytest.raises(kind) as caught:
        client.chat.completions.create(model="smart", messages=[{"role": "user", "content": "x"}])
    assert caught.value.status_code == status
    assert caught.value.param == "model"
    assert caught.value.code == dialects.OPENAI.render(played.refusal)["error"]["code"]
    assert caught.value.request_id


@pytest.mark.parametrize("reason", KINDS)
def test_what_googles_client_raises(url: str, played: Played, reason: str) -> None:
    """ClientError for what the caller can mend, ServerError for the rest, with code and status."""
    played.refusal = KINDS[reason]("no", param="model")
    status = dialects.GOOGLE.status(played.refusal.reason)
    kind = google_errors.ServerError if status >= 500 else google_errors.ClientError
    # The client's own retries would only make this slow.
    options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=1))
    with genai.Client(api_key=KEY, http_options=options) as client, pytest.raises(kind) as caught:
        client.models.generate_content(model="smart", contents="x")
    wanted = dialects.GOOGLE.render(played.refusal)["error"]
    assert (caught.value.code, caught.value.status, caught.value.message) == (status, wanted["status"], "no")


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("reason", KINDS)
def test_a_failure_inside_a_stream(url: str, played: Played, reason: str, name: str) -> None:
    """After the first piece a failure is an event in the dialect's own form, and the last but for an end mark."""
    error: MoaError = KINDS[reason](MESSAGE, param=PARAM)
    played.script = [text(said("a")), error]
    form = ANSWERING[name].streams["text"]
    asked = form.ask("smart")
    got = requests.post(url + asked.path, headers={"x-api-key": KEY}, timeout=60, **asked.how)
    assert got.status_code == 200
    events = form.read(got.content.decode())
    if events[-1] == "[DONE]":
        events.pop()
    rendered = dialects.DIALECTS[name].render(error, request_id=got.headers["x-request-id"])
    rig = ANSWERING[name]
    assert rig.failure_in(events[-1]) == rig.in_stream(rendered)


def test_every_dialect_of_the_router_is_here() -> None:
    """A dialect that registers is held to the whole matrix, or this fails."""
    registered = {module.name for module in pkgutil.iter_modules(router_dialects.__path__) if module.ispkg}
    assert ANSWERING.keys() == registered
    assert RIGS.keys() == dialects.DIALECTS.keys()


def test_a_dialect_without_a_rig_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told which module to write, before any test of a matrix is left out."""
    with monkeypatch.context() as patched:
        patched.setitem(dialects.DIALECTS, "another", dialects.Dialect(name="another", envelope={}))
        with pytest.raises(LookupError, match=r"write tests/dialects/another\.py"):
            importlib.reload(rigs)
    importlib.reload(rigs)


def test_every_reason_has_a_rule_a_class_and_a_word() -> None:
    """No reason is missing from what callers meet: the contract's rule, the exceptions, the dialects' tables."""
    assert {kind.reason for kind in BY_WORD.values()} == set(RULES)
    for rule in RULES.values():
        assert 400 <= rule.http < 600
        assert rule.grpc != code_pb2.OK
        assert rule.blame
        # Load balancers would take a healthy process for a sick one.
        if rule.blame == error_pb2.BLAME_UPSTREAM:
            assert rule.grpc not in (code_pb2.UNAVAILABLE, code_pb2.INTERNAL)
        # Nobody mends a request, or an account, by waiting; a limit on the pace is one that ends by itself.
        assert not (rule.passing and rule.blame == error_pb2.BLAME_REQUEST)
    for dialect in dialects.DIALECTS.values():
        for reason in RULES:
            assert 400 <= dialect.status(reason) < 600
