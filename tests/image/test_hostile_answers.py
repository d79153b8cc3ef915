"""A provider whose answers mean harm: repeated credentials are heard by nobody, links to the inside are not fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common import errors
from services.common.scrub import HIDDEN
from services.image.targets import ADAPTERS
from tests import shipped
from tests.emulators import aws
from tests.emulators.echo import SPELLINGS, Echo, EchoEmulator, traces_of
from tests.emulators.pictures import png
from tests.image.harness import ImageClient, image_service, shipped_rows
from tests.image.subjects import SUBJECTS

SUBJECT = {subject.name: subject for subject in SUBJECTS}
KEY = "vendor-Qx7/nB+2mZp9kL4wT8vR1sYc"
PICTURE = base64.b64encode(png()).decode()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _event(value: Any) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _google(**more: Any) -> bytes:
    return _json({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no", **more}})


def _candidate(**more: Any) -> bytes:
    return _json({"candidates": [{"content": {"parts": []}, **more}]})


_OPENAI = (
    Echo("message", lambda k: _json({"error": {"message": f"bad {k} here", "param": k, "code": k}}), 400),
    Echo("code", lambda k: _json({"error": {"message": "no", "code": k}}), 400, shown=False),
    Echo("revised prompt", lambda k: _json({"data": [{"b64_json": PICTURE, "revised_prompt": k}]})),
    Echo(
        "in the stream",
        lambda k: _event({"error": {"message": k, "code": "400"}}),
        content_type="text/event-stream",
    ),
)
ECHOES: Mapping[str, Sequence[Echo]] = {
    "gpt-image": _OPENAI,
    "azure": _OPENAI,
    "gemini": (
        Echo("message", lambda k: _google(message=f"bad {k} here"), 400),
        Echo("code", lambda k: _google(status=k, details=[{"@type": k, "reason": k}]), 400, shown=False),
        Echo("block reason", lambda k: _json({"promptFeedback": {"blockReason": k}})),
        Echo("block words", lambda k: _json({"promptFeedback": {"blockReason": "X", "blockReasonMessage": k}})),
        Echo("finish", lambda k: _candidate(finishReason=k)),
        Echo("finish message", lambda k: _candidate(finishReason="IMAGE_SAFETY", finishMessage=k)),
    ),
    "imagen": (
        Echo("message", lambda k: _google(message=f"bad {k} here"), 400),
        Echo("filtered", lambda k: _json({"predictions": [{"raiFilteredReason": k}]})),
        Echo("prompt", lambda k: _json({"predictions": [{"bytesBase64Encoded": PICTURE, "prompt": k}]})),
    ),
    "nova-canvas": (
        Echo("message", lambda k: _json({"message": f"bad {k} here"}), 400),
        Echo("code", lambda k: b"{}", 400, headers=lambda k: {"x-amzn-errortype": k}, shown=False),
        Echo("finish", lambda k: _json({"finish_reasons": [k]})),
        Echo("error", lambda k: _json({"error": k})),
    ),
    "ideogram": (
        Echo("error", lambda k: _json({"error": f"bad {k} here"}), 400),
        Echo("message", lambda k: _json({"message": k}), 422),
    ),
    "stability-ultra": (
        Echo("errors", lambda k: _json({"name": "bad_request", "errors": ["no", f"bad {k} here"]}), 400),
        Echo("code", lambda k: _json({"name": k, "errors": []}), 400, shown=False),
    ),
}


def test_every_adapter_has_echoes() -> None:
    """A new adapter comes with its echoes; that of servers of one's own reads as OpenAI's does."""
    providers = shipped.catalogue().providers
    own, openai = ADAPTERS["server"], ADAPTERS["openai"]
    assert (own.reader, own.error_from) == (openai.reader, openai.error_from)
    assert {"server", *(providers[SUBJECT[name].provider].adapter for name in ECHOES)} == set(ADAPTERS)


@pytest.fixture
async def upstream() -> AsyncIterator[EchoEmulator]:
    async with EchoEmulator() as emulator:
        yield emulator


async def _said(client: ImageClient, request: GenerateImageRequest) -> str:
    """Return everything that a call's caller is sent, as text."""
    said: list[bytes] = []
    try:
        said += [message.SerializeToString() async for message in client.call(request)]
    except grpc.aio.AioRpcError as failure:
        said.append((failure.details() or "").encode())
        for _, value in failure.trailing_metadata() or ():
            said.append(value if isinstance(value, bytes) else value.encode())
    return b"\n".join(said).decode(errors="replace")


def _stream(counts: str) -> bytes:
    completed = f'{{"type": "image_generation.completed", "b64_json": "{PICTURE}", "usage": {counts}}}'
    return f"data: {completed}\n\n".encode()


USAGES: Mapping[str, tuple[str, Callable[[str], bytes], tuple[str, str], str]] = {
    "whole": (
        "gpt-image",
        lambda counts: f'{{"data": [{{"b64_json": "{PICTURE}"}}], "usage": {counts}}}'.encode(),
        ("input_tokens", "output_tokens"),
        "application/json",
    ),
    "stream": ("gpt-image", _stream, ("input_tokens", "output_tokens"), "text/event-stream"),
    "azure": ("azure", _stream, ("input_tokens", "output_tokens"), "text/event-stream"),
    "gemini": (
        "gemini",
        lambda counts: (
            f'{{"candidates": [{{"content": {{"parts": [{{"inlineData": {{"data": "{PICTURE}"}}}}]}}}}], '
            f'"usageMetadata": {counts}}}'
        ).encode(),
        ("promptTokenCount", "candidatesTokenCount"),
        "application/json",
    ),
}
"""The image adapters whose providers count tokens: how they answer, and what they call prompt and completion."""


@pytest.mark.parametrize(
    ("written", "told"),
    [
        *(("4294967296", 0), ("1" + "0" * 6000, 0), ("null", 0), ('"many"', 0), ("-7", 0), ("6.5", 7), ("[]", 0)),
        ("NaN", 0),
    ],
)
@pytest.mark.parametrize("name", USAGES)
async def test_a_wrong_count_fails_no_image(
    upstream: EchoEmulator, tmp_path: Path, name: str, written: str, told: int
) -> None:
    """Two calls of one request, each with a wrong count: the images come, the usage is bounded and not exact."""
    subject_name, answer, (prompt, completion), kind = USAGES[name]
    subject = SUBJECT[subject_name]
    upstream.echo = Echo("usage", lambda _: answer(f'{{"{prompt}": {written}, "{completion}": 5}}'), content_type=kind)
    providers, models = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream))
    for model in models:
        model.setdefault("limits", {})["count"] = 1
    async with image_service(tmp_path, providers, models, dict.fromkeys(subject.environment, KEY)) as service:
        request = GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="a sea", count=2)
        events = await service.ask(request)
    usage = events[-1].finished.usage
    assert (usage.images, usage.exact) == (2, False)
    assert usage.prompt_tokens == 2 * told
    assert usage.completion_tokens == (0 if len(written) > 1000 else 10)


def test_every_counting_adapter_is_tried() -> None:
    """Those of which the contract suite knows that their providers count."""
    assert {subject.provider for subject in SUBJECTS if subject.counts} == {
        SUBJECT[name].provider for name, *_ in USAGES.values()
    }


LINKS = [
    "https://[",
    "https://127.1/a.png",
    "https://2130706433/a.png",
    "https://169.254.169.254/a",
    "file:///etc/passwd",
]


@pytest.mark.parametrize(
    "link", [*LINKS, "http://example.com/a.png", "https://localhost/a.png", "https://a@b.example/"]
)
async def test_a_providers_link_to_the_inside_is_not_fetched(upstream: EchoEmulator, tmp_path: Path, link: str) -> None:
    """An answer that links to no public place is a broken one, whatever the link looks like."""
    subject = SUBJECT["ideogram"]
    upstream.echo = Echo("link", lambda _: _json({"data": [{"url": link}]}))
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream))
    async with image_service(tmp_path, *rows, dict.fromkeys(subject.environment, KEY)) as service:
        with pytest.raises(errors.UpstreamBroken, match="link to the image"):
            await service.ask(GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="a sea"))


@pytest.mark.parametrize(
    ("name", "echo"), [(name, echo) for name, echoes in ECHOES.items() for echo in echoes], ids=str
)
async def test_a_repeated_key_reaches_nobody(upstream: EchoEmulator, tmp_path: Path, name: str, echo: Echo) -> None:
    """Whatever field of an answer repeats it, in whatever spelling: it is in no message, status or trailer."""
    subject = SUBJECT[name]
    upstream.echo = echo
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream))
    environment = dict.fromkeys(subject.environment, KEY)
    if "AWS_ACCESS_KEY_ID" in environment:
        environment["AWS_ACCESS_KEY_ID"] = aws.ACCESS_KEY
    async with image_service(tmp_path, *rows, environment) as service:
        for spelling, spelled in SPELLINGS.items():
            upstream.key = spelled(KEY)
            said = await _said(
                service, GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="a sea")
            )
            for trace in traces_of(KEY):
                assert trace not in said.lower(), (spelling, said)
            assert (HIDDEN in said) == echo.shown, (spelling, said)
