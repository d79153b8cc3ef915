"""A provider that repeats the gateway's credentials: nobody hears of them, whichever adapter asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from yarl import URL

from services.common.byok import METADATA_KEY
from services.common.rpc.client import metadata
from services.common.scrub import HIDDEN, scrub
from services.providers.azure.entra import EntraToken
from services.providers.http.client import Outgoing
from services.text.targets import ADAPTERS
from tests.emulators import aws
from tests.emulators.echo import SPELLINGS, Echo, EchoEmulator, traces_of
from tests.text.harness import TOKEN, chat, text_service
from tests.text.subjects import SUBJECTS, Subject

SUBJECT = {subject.name: subject for subject in SUBJECTS}
KEYS = {
    "openai": "vendor-Qx7/nB+2mZp9kL4wT8vR1sYc",
    "azure": "0f4e8d2c6b1a49d7a3c5e7f9b1d3a5c7",
    "gemini": "GKey-7hWq2nXv9sRt4bYm6cPz8dLk",
    "bedrock": aws.SECRET_KEY,
    "server": "box-Nq4vT8zL2kWc7Rm1YpXs9dHb",
    "anthropic": "AKey-9sRt4bYm6cPz8dLk7hWq2nXv",
}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _events(*values: Any) -> bytes:
    return b"".join(b"data: " + _json(value) + b"\n\n" for value in values)


def _choice(**more: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, **more}]}


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


_STREAM = "text/event-stream"
_FRAMES = "application/vnd.amazon.eventstream"
_OPENAI = (
    Echo("message", lambda k: _json({"error": {"message": f"bad {k} here"}}), 400),
    Echo("param", lambda k: _json({"error": {"message": "no", "param": k}}), 400),
    Echo("code", lambda k: _json({"error": {"message": "no", "code": k, "type": k}}), 400, shown=False),
    Echo("inner code", lambda k: _json({"error": {"message": k, "innererror": {"code": k}}}), 422),
    Echo("a string", lambda k: _json({"error": k}), 400),
    Echo("flat", lambda k: _json({"message": k, "param": k, "code": k}), 400),
    Echo("no JSON", lambda k: k.encode(), 400, "text/plain", shown=False),
    Echo("credentials", lambda k: _json({"error": {"message": k}}), 401, shown=False),
    Echo("request id", lambda k: b"{}", 500, headers=lambda k: {"x-request-id": k}, shown=False),
    Echo(
        "in the stream",
        lambda k: _events(_choice(delta={"content": "a"}), {"error": {"message": k, "param": k, "code": "400"}}),
        content_type=_STREAM,
    ),
    Echo(
        "refusal in pieces",
        lambda k: _events(
            *(_choice(delta={"refusal": half}) for half in _halves(k)), _choice(delta={}, finish_reason="stop")
        ),
        content_type=_STREAM,
    ),
    Echo("whole refusal", lambda k: _json(_choice(message={"refusal": k}, finish_reason="stop"))),
    Echo("finish", lambda k: _json(_choice(message={"content": "a"}, finish_reason=k)), shown=False),
)


def _google(**more: Any) -> dict[str, Any]:
    return {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no", **more}}


def _candidate(**more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": "a"}]}, **more}]}


def _exception(name: str, message: str) -> bytes:
    return aws.exception_frame(name, _json({"message": message}))


def _refused(**more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": "no", **more}}


def _piece(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def _stopped(**delta: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": delta}


def _ended(**delta: Any) -> bytes:
    return _events(_piece("a"), _stopped(**delta), {"type": "message_stop"})


ECHOES: Mapping[str, Sequence[Echo]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "server": _OPENAI,
    "gemini": (
        Echo("message", lambda k: _json(_google(message=f"bad {k} here")), 400),
        Echo("status", lambda k: _json(_google(status=k)), 400, shown=False),
        Echo("reason", lambda k: _json(_google(details=[{"@type": k, "reason": k}])), 400, shown=False),
        Echo("credentials", lambda k: _json(_google(status="UNAUTHENTICATED", message=k)), 401, shown=False),
        Echo("in the stream", lambda k: _events(_candidate(), _google(message=k)), content_type=_STREAM),
        Echo("block reason", lambda k: _events({"promptFeedback": {"blockReason": k}}), content_type=_STREAM),
        Echo("block words", lambda k: _json({"promptFeedback": {"blockReason": "X", "blockReasonMessage": k}})),
        Echo("finish", lambda k: _events(_candidate(finishReason=k)), content_type=_STREAM),
        Echo("finish message", lambda k: _json(_candidate(finishReason="SAFETY", finishMessage=k))),
    ),
    "bedrock": (
        Echo(
            "message",
            lambda k: _json({"message": f"bad {k} here"}),
            400,
            headers=lambda _: {"x-amzn-errortype": "ValidationException"},
        ),
        Echo("Message", lambda k: _json({"Message": k}), 400),
        Echo("type", lambda k: b"{}", 400, headers=lambda k: {"x-amzn-errortype": k}, shown=False),
        Echo("request id", lambda k: b"{}", 500, headers=lambda k: {"x-amzn-requestid": k}, shown=False),
        Echo("in the stream", lambda k: _exception("validationException", k), content_type=_FRAMES),
        Echo("exception", lambda k: _exception(k, k), content_type=_FRAMES, shown=False),
        Echo("stop", lambda k: aws.event_frame("messageStop", _json({"stopReason": k})), content_type=_FRAMES),
    ),
    "anthropic": (
        Echo("message", lambda k: _json(_refused(message=f"bad {k} here")), 400),
        Echo("type", lambda k: _json(_refused(type=k)), 400, shown=False),
        Echo("no JSON", lambda k: k.encode(), 400, "text/plain", shown=False),
        Echo("credentials", lambda k: _json(_refused(type="authentication_error", message=k)), 401, shown=False),
        Echo("request id", lambda k: b"{}", 500, headers=lambda k: {"request-id": k}, shown=False),
        Echo("in the stream", lambda k: _events(_piece("a"), _refused(message=k)), content_type=_STREAM),
        Echo("stop", lambda k: _events(_piece("a"), _stopped(stop_reason=k)), content_type=_STREAM),
        Echo("stop sequence", lambda k: _ended(stop_reason="stop_sequence", stop_sequence=k), content_type=_STREAM),
        Echo(
            "refusal",
            lambda k: _ended(stop_reason="refusal", stop_details={"type": "refusal", "explanation": k}),
            content_type=_STREAM,
        ),
        Echo("kind", lambda k: _json({"content": [{"type": k}], "stop_reason": "end_turn"})),
    ),
}


def test_every_adapter_has_echoes() -> None:
    """A new adapter comes with its echoes, and every adapter repeats a message and a code."""
    assert set(ECHOES) == set(ADAPTERS) == set(KEYS)


@pytest.fixture
async def upstream() -> AsyncIterator[EchoEmulator]:
    async with EchoEmulator() as emulator:
        yield emulator


async def _said(call: grpc.aio.UnaryStreamCall[Any, Any]) -> str:
    """Return everything that a call's caller is sent, as text."""
    said: list[bytes] = []
    try:
        said += [message.SerializeToString() async for message in call]
    except grpc.aio.AioRpcError as failure:
        said.append((failure.details() or "").encode())
        for _, value in failure.trailing_metadata() or ():
            said.append(value if isinstance(value, bytes) else value.encode())
    return b"\n".join(said).decode(errors="replace")


def _service(subject: Subject, upstream: EchoEmulator, folder: Path) -> Any:
    environment = dict.fromkeys(subject.environment, KEYS[subject.name])
    if subject.name == "bedrock":
        environment["AWS_ACCESS_KEY_ID"] = aws.ACCESS_KEY
    return text_service(folder, subject.providers(upstream), subject.models(), environment)


@pytest.mark.parametrize(
    ("name", "echo"), [(name, echo) for name, echoes in ECHOES.items() for echo in echoes], ids=str
)
async def test_a_repeated_key_reaches_nobody(
    upstream: EchoEmulator, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, echo: Echo
) -> None:
    """Whatever field of an answer repeats it, in whatever spelling: it is in no message, status or trailer."""
    upstream.echo = echo
    async with _service(SUBJECT[name], upstream, tmp_path) as service:
        for spelling, spelled in SPELLINGS.items():
            upstream.key = spelled(KEYS[name])
            said = await _said(service.call(chat()))
            for trace in traces_of(KEYS[name]):
                assert trace not in said.lower(), (spelling, said)
            assert (HIDDEN in said.replace("%5B", "[").replace("%5D", "]")) == echo.shown, (spelling, said)


async def test_a_callers_own_key_is_told_to_nobody(upstream: EchoEmulator, tmp_path: Path) -> None:
    """It is known for its call alone, and hidden there like the operator's."""
    key = "AIzaOwn-3kQv8sWz"
    upstream.echo = ECHOES["gemini"][0]
    upstream.key = key
    async with _service(SUBJECT["gemini"], upstream, tmp_path) as service:
        call = service.stub.GenerateText(chat(), metadata=metadata(TOKEN, "req-test", (METADATA_KEY, key)))
        said = await _said(call)
    assert HIDDEN in said
    assert key not in said
    assert scrub(f"after: {key}") == f"after: {key}", "a caller's key is forgotten with the call"


async def test_the_words_about_a_request_stay_readable(upstream: EchoEmulator, tmp_path: Path) -> None:
    """What holds no secret is passed on as it is."""
    upstream.echo = ECHOES["openai"][0]
    upstream.key = "temperature 9.5 of task-list sk-8 (request 0123456789abcdef0123456789abcdef)"
    async with _service(SUBJECT["openai"], upstream, tmp_path) as service:
        assert f"bad {upstream.key} here" in await _said(service.call(chat()))


async def test_a_token_that_was_fetched_is_known(upstream: EchoEmulator) -> None:
    """An Entra token is hidden from the moment on in which it came, and the one before it too."""
    upstream.echo = Echo("token", lambda k: _json({"access_token": k, "expires_in": 0}))
    asking = EntraToken(lambda: Outgoing(URL(f"{upstream.url}/token"), b"", {}))
    for key in ("opaque.First-7kWq2nXv", "opaque.Second-9sRt4bYm"):
        upstream.key = key
        await asking.headers(Outgoing(URL(upstream.url), b"", {}))
    assert scrub("opaque.First-7kWq2nXv or opaque.Second-9sRt4bYm") == f"{HIDDEN} or {HIDDEN}"


async def test_aws_credentials_that_were_found_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Botocore's chain reads them by itself; they are hidden all the same."""
    from services.providers.aws.chain import ChainSigV4

    found = {
        "ACCESS_KEY_ID": "CHAINACCESS12",
        "SECRET_ACCESS_KEY": "chain/Secret+1234",
        "SESSION_TOKEN": "Tok/8wq+zz11",
    }
    for name, value in found.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    chain = ChainSigV4(service="bedrock", region="us-east-1", instance_role=False)
    await chain.headers(Outgoing(URL("https://bedrock-runtime.us-east-1.amazonaws.com/x"), b"", {}))
    for value in found.values():
        assert scrub(f"your {value}!") == f"your {HIDDEN}!"
