"""Secrets are taken out of what leaves a process."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from deploy.local.ports import Ports
from services.common import errors, otlp
from services.common import settings as process
from services.common.scrub import HIDDEN, LEAST, know, of_call, scrub
from services.common.tracing.recorder import Recorder
from services.providers.http.classify import classified
from tests.emulators.collector import collecting
from tests.emulators.echo import SPELLINGS, traces_of

SHAPED = (
    "sk-proj-Ab3dEf6hIj9lMn2pQr5t",
    "sk-ant-api03-Ab3dEf6hIj9lMn2pQr5t",
    "AIzaSyD-Ab3dEf6hIj9lMn2pQr5tUv8xYz01234",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLEX",
    "ya29.a0AfB_byC-Ab3dEf6hIj9lMn2pQr5t",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01",
    "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl",
    "moa-Ab3dEf6hIj9lMn2pQr5tUv8xYz01234Ab3dEf6hIj9",
    "Bearer opaque0123456789",
    "Basic b3BlcmF0b3I6c2VjcmV0",
    "api-key: 0f4e8d2c6b1a49d7a3c5e7f9b1d3a5c7",
    '"access_token": "opaque-0123456789"',
    "client_secret=Ab3~dEf6hIj9lMn2pQr5t",
    "https://host/path?key=opaque0123456789&alt=sse",
    "Credential=X/20260101/aws4_request, Signature=0f4e8d2c6b1a49d7a3c5e7f90f4e8d2c6b1a49d7a3c5e7f9",
    "https://operator:hunter2hunter2@proxy.internal/v1",
)


@pytest.mark.parametrize("shaped", SHAPED)
def test_what_looks_like_a_key_is_hidden(shaped: str) -> None:
    """Also where nobody told the process of it, and in any case of letters."""
    for text in (f"you sent {shaped}, which is wrong", f"YOU SENT {shaped.upper()}!"):
        told = scrub(text)
        assert HIDDEN in told
        assert not any(part.lower() in told.lower() for part in ("hij9lmn2", "0123456789", "hunter2", "49d7a3c5"))


@pytest.mark.parametrize(
    "text",
    [
        "the prompt does not fit the model's context",
        "messages[0].content[2].image_url: not a URL",
        "Basic authentication and bearer tokens are explained in the docs: api key required",
        "request 5d1f3b9e7c2a48d6b0e4a8c2f6d0b4e8 of task-list sk-8 for moa-tiny-chat, in Asia and akin",
        "max_tokens: 4096 is more than 1024; token limit exceeded, secret garden, signature dish",
        "https://example.com/a?b=c and ipv4:127.0.0.1:8101,127.0.0.1:8102",
        "열쇠가 없습니다",
        "",
    ],
)
def test_ordinary_sentences_stay(text: str) -> None:
    """Words that only speak of keys are left alone."""
    assert scrub(text) == text


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=24, max_size=80),
    spelling=st.sampled_from(sorted(SPELLINGS)),
    around=st.tuples(st.text(max_size=20), st.text(max_size=20)),
)
def test_no_spelling_of_a_known_secret_passes(secret: str, spelling: str, around: tuple[str, str]) -> None:
    """Whatever the secret is made of and whatever stands around it."""
    of_call(secret)
    told = scrub(around[0] + SPELLINGS[spelling](secret) + around[1]).lower()
    of_call()
    for trace in traces_of(secret):
        assert trace in "".join(around).lower() or trace not in told


def test_short_secrets_are_not_looked_for() -> None:
    """A dummy key of a local server is no reason to garble sentences."""
    know("none", "x" * (LEAST - 1))
    assert scrub("there is none of xxxxxxx here") == "there is none of xxxxxxx here"


def test_of_an_address_the_password_is_the_secret() -> None:
    """Hosts stay readable, the password goes wherever it stands."""
    know("postgresql://moa:pass-0815-word@127.0.0.1:5432/moa")
    assert scrub("postgresql is at 127.0.0.1:5432, not pass-0815-word") == (
        f"postgresql is at 127.0.0.1:5432, not {HIDDEN}"
    )


def test_an_error_holds_no_secret() -> None:
    """Wherever it is made: message, field and the exception's own text."""
    know("canary-0815-canary")
    error = errors.InvalidField("bad canary-0815-canary", param="a.canary-0815-canary")
    assert (error.message, error.param, str(error)) == (f"bad {HIDDEN}", f"a.{HIDDEN}", f"bad {HIDDEN}")
    travelled = errors.error_of(errors.detail_of(error, "r"))
    assert travelled.message == f"bad {HIDDEN}"


def test_a_providers_words_are_cut_after_they_were_searched() -> None:
    """A secret at the place of the cut does not stay by half; a field's name is as short as one is."""
    know("boundary-secret-0123456789")
    told = classified(400, codes={}, words="x" * 480 + "boundary-secret-0123456789", param="p" * 5000)
    assert "bound" not in told.message
    assert len(told.param) == 200


def test_settings_that_are_read_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process's own secrets are hidden from its start on."""

    class Own(process.ServiceSettings):
        more: SecretStr

    monkeypatch.setenv("MOA_SERVICE_TOKEN", "service-token-of-this-test")
    monkeypatch.setenv("MOA_MORE", "more-secret-of-this-test")
    process.read(Own)
    assert scrub("service-token-of-this-test, more-secret-of-this-test") == f"{HIDDEN}, {HIDDEN}"


def test_spans_hold_no_secret() -> None:
    """Neither what a span begins with, nor what is noted later, nor how it ends."""
    know("canary-0815-canary")
    address = f"127.0.0.1:{Ports().any()}"
    collector = otlp.read({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"})
    assert collector is not None
    with collecting(address) as told:
        recorder = Recorder("test", collector)
        span = recorder.working("work", f"00-{'1' * 32}-{'1' * 16}-01")
        assert span is not None
        inner = recorder.child("POST", span, {"url.full": "http://h/canary-0815-canary", "n": 1}, calls=True)
        inner.note({"words": "a canary-0815-canary", "many": ("canary-0815-canary", "b")})
        inner.end("canary-0815-canary")
        span.end()
        recorder.close()
        found = told.trace("1" * 32, lambda spans: len(spans) == 2)
    assert [s.attributes["url.full"] for s in found if "n" in s.attributes] == [f"http://h/{HIDDEN}"]
    assert not any(b"0815" in raw for raw in told.raw)


_LOGGING = """
import logging
from services.common import logs
from services.common.scrub import know
know("canary-0815-canary")
logs.configure("test", "info")
try:
    raise ValueError("lost\\ncanary-0815-canary")
except ValueError:
    logs.get("test").exception("line.written", field="a canary-0815-canary", deep={"a": ["canary-0815-canary"]}, n=1)
    logging.getLogger("library").exception("a canary-0815-canary")
"""


def test_log_lines_hold_no_secret(tmp_path: Path) -> None:
    """Neither a field, at any depth, nor a traceback with its lines of code, nor another library's line."""
    program = tmp_path / "program.py"
    program.write_text(_LOGGING)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
    assert "0815" not in done.stderr
    line = json.loads(done.stderr.splitlines()[0])
    assert (line["field"], line["deep"], line["n"]) == (f"a {HIDDEN}", {"a": [HIDDEN]}, 1)
    assert HIDDEN in line["exception"]
    assert done.stderr.count(HIDDEN) == 7


@pytest.mark.parametrize(
    "write",
    [
        lambda secret: secret[:20] + "\n" + secret[20:],
        lambda secret: secret[:20] + "\u200b" + secret[20:],
        lambda secret: f'["{secret[:20]}","{secret[20:]}"]',
        lambda secret: base64.encodebytes(secret.encode()).decode().replace("\n", "\r\n"),
        lambda secret: "\n".join(base64.b64encode(secret.encode()).decode()[n : n + 24] for n in range(0, 96, 24)),
    ],
    ids=["a line break", "a mark of no width", "a list", "mime", "short lines"],
)
def test_a_secret_that_is_broken_up_leaves_no_rest(write: Callable[[str], str]) -> None:
    """What begins like a known secret and goes on otherwise is hidden to the text's end: the rest may be written in any
    way."""
    secret = "kept-" + "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=60))
    know(secret)
    told = scrub(f"no such key {write(secret)}, it says")
    assert told.startswith("no such key ")
    for n in range(len(secret) - 8):
        assert secret[n : n + 8] not in told
    coded = base64.b64encode(secret.encode()).decode()
    assert not any(coded[n : n + 8] in told for n in range(len(coded) - 8))


def test_a_secret_of_digits() -> None:
    """A secret that is made like a request's id is found in it, whole, in the middle, and as bytes are written."""
    know("0f4e8d2c6b1a49d7", "hunter2hunter2")
    for text in ("0f4e8d2c6b1a49d7", "00000f4e8d2c6b1a49d7-aaaa", b"hunter2hunter2".hex()):
        assert HIDDEN in scrub(text)
    assert scrub("0f4e8d2c-6b1a-49d7-a3c5-e7f9b1d3a5c7") == "0f4e8d2c-6b1a-49d7-a3c5-e7f9b1d3a5c7"
