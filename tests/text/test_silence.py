"""What ends a provider's silence, and how long an answer may take that is nothing but silence until it is whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Load, Model, Provider, Timeouts
from services.catalogue.waiting import WHOLE_TOKENS, may_be_long, whole_s
from services.common import errors
from services.common.rpc.status import error_from_rpc
from services.providers.http.deadline import Deadline
from services.text import generation
from services.text.servicer import PART_TOKENS
from tests.text.harness import Row, chat, text_of, text_service
from tests.text.test_broken_pieces import HEAD, _chunk, _wire

PROVIDER: Row = {"id": "p", "makes": "text", "adapter": "openai"}
MODELS: list[Row] = [{"id": "m", "provider": "p"}]


def _sent(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


REST = _sent(_chunk("one "), _chunk("two", "stop"), b"data: [DONE]\n\n", b"")


async def test_a_providers_comments_are_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come as messages without events, before the first event and amid the answer, and change nothing of it."""
    monkeypatch.setattr(generation, "LIFE_S", 0.0)
    comment = b": PROCESSING\n\n"
    async with (
        _wire(HEAD + _sent(comment), REST) as (url, go),
        text_service(tmp_path, [{**PROVIDER, "base_url": url}], MODELS, {}) as service,
        asyncio.timeout(60),
    ):
        messages = aiter(service.call(chat()))
        assert not (await anext(messages)).events
        go.set()
        events = [event async for message in messages for event in message.events]
    assert text_of(events) == "one two"
    assert events[-1].HasField("finished")


async def test_a_role_is_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that names its role, and then thinks unseen, is waited for like one that says nothing before its answer.

    So what came is no beginning: it is told with the first word, and until then is a sign of life.
    """
    monkeypatch.setattr(generation, "LIFE_S", 0.0)
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    first = b"data: " + json.dumps({"id": "1", "model": "m-1", "choices": [role]}).encode() + b"\n\n"
    request = chat()
    request.vendor.vendor = "openai"  # who is told the snapshot's name, too
    async with (
        _wire(HEAD + _sent(first), REST) as (url, go),
        text_service(tmp_path, [{**PROVIDER, "base_url": url}], MODELS, {}) as service,
        asyncio.timeout(60),
    ):
        messages = aiter(service.call(request))
        assert not (await anext(messages)).events
        go.set()
        events = [event async for message in messages for event in message.events]
    assert text_of(events) == "one two"
    assert any(b"m-1" in event.vendor.json for event in events)


async def test_a_long_whole_answer_comes_in_parts_that_show_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its provider is asked for a stream; what came is told from time to time, for whoever pays for it as it grows."""
    monkeypatch.setattr("services.text.servicer.LIFE_S", 0.0)
    request = chat(max_tokens=WHOLE_TOKENS + 1)
    request.stream = False
    async with (
        _wire(HEAD + _sent(_chunk("zero ")), REST) as (url, go),
        text_service(tmp_path, [{**PROVIDER, "base_url": url}], MODELS, {}) as service,
        asyncio.timeout(60),
    ):
        messages = aiter(service.call(request))
        assert text_of((await anext(messages)).events) == "zero "
        go.set()
        rest = [event async for message in messages for event in message.events]
    assert text_of(rest) == "one two"
    assert rest[-1].HasField("finished")


async def test_a_fast_whole_answer_comes_in_parts_that_can_be_paid(tmp_path: Path) -> None:
    """However fast its model is, no more comes at once than whoever pays for it can refuse to go on with."""
    request = chat()
    request.ClearField("max_tokens")
    request.stream = False
    pieces = [_chunk("word ") for _ in range(PART_TOKENS * 16)]
    async with (
        _wire(HEAD + _sent(pieces[0]), _sent(*pieces[1:]) + REST) as (url, go),
        text_service(tmp_path, [{**PROVIDER, "base_url": url}], MODELS, {}) as service,
        asyncio.timeout(60),
    ):
        go.set()
        messages = [message async for message in service.call(request)]
    assert len(messages) > 2
    assert messages[-1].events[-1].HasField("finished")
    assert text_of([event for message in messages for event in message.events]) == "word " * len(pieces) + "one two"


async def test_what_extends_a_bound_never_nears_it() -> None:
    """A comment a second after the request takes nothing from the time that a first word may take; one that comes late
    gives the provider as long again as it may be silent."""
    with Deadline() as deadline:
        deadline.within(0.02, "connect")
        deadline.within(3600, "begin")
        deadline.extend(0.001, "go on")
        await asyncio.sleep(0.05)
    with Deadline() as deadline:
        deadline.within(0.02, "begin")
        deadline.extend(3600, "go on")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("asked", "default", "seconds", "is_long"),
    [
        (100, 1024, 75, False),
        (None, 1024, 167.4, False),
        (2048, 10, 269.8, False),
        (2049, 10, 269.9, True),
        (None, 0, 474.6, True),
    ],
)
def test_a_whole_answer_may_take_as_long_as_its_tokens(
    asked: int | None, default: int, seconds: float, is_long: bool
) -> None:
    """At 10 tokens a second, beside the time to connect and to the first word; one that nobody bounded is a stream."""
    model = Model(id="m", provider="p", default_max_tokens=default)
    request = GenerateTextRequest(max_tokens=asked)
    assert whole_s(Timeouts(), request, model) == pytest.approx(seconds)
    assert may_be_long(request, model) is is_long


def test_models_that_reason_may_think_for_ten_minutes() -> None:
    """Unless their row says more; models of one's own show that they work, and are as bounded as others."""
    provider = Provider(id="p", adapter="x", makes="text", timeouts=Timeouts(first_token_s=30))
    patient = Provider(id="p", adapter="x", makes="text", timeouts=Timeouts(first_token_s=900))
    thinker = Model(id="m", provider="p", capabilities=frozenset({"reasoning"}))
    own = Model(id="m", provider="p", capabilities=frozenset({"reasoning"}), load=Load(source="x"))
    plain = Model(id="m", provider="p")
    assert [provider.timeouts_for(model).first_token_s for model in (thinker, own, plain)] == [600, 30, 30]
    assert patient.timeouts_for(thinker).first_token_s == 900
    assert provider.timeouts_for(thinker).idle_s == provider.timeouts.idle_s


async def test_a_short_whole_answer_is_bounded_by_its_tokens_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its provider sends nothing, not even headers, before it is whole: one bound is set, for all of it."""
    bounds: list[float] = []
    within = Deadline.within

    def noted(self: Deadline, seconds: float, what: str) -> None:
        bounds.append(seconds)
        within(self, seconds, what)

    monkeypatch.setattr(Deadline, "within", noted)
    choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    body = json.dumps({"id": "1", "choices": [choice]}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = chat(max_tokens=500)
    request.stream = False
    timeouts: Row = {"timeouts": {"connect_s": 30, "first_token_s": 40}}
    async with (
        _wire(head + body, b"") as (url, _),
        text_service(tmp_path, [{**PROVIDER, **timeouts, "base_url": url}], MODELS, {}) as service,
        asyncio.timeout(60),
    ):
        assert text_of(await service.ask(request)) == "whole"
    assert bounds == [30 + 40 + 50]


async def test_a_stream_of_comments_that_closes_is_told_as_begun(tmp_path: Path) -> None:
    """Its failure comes at once, behind a sign of life: whoever called does not have the provider begin anew."""
    async with (
        _wire(HEAD + _sent(b": PROCESSING\n\n", b": PROCESSING\n\n", b""), b"") as (url, _),
        text_service(tmp_path, [{**PROVIDER, "base_url": url}], MODELS, {}) as service,
        asyncio.timeout(60),
    ):
        messages = aiter(service.call(chat()))
        assert not (await anext(messages)).events
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await anext(messages)
    assert isinstance(error_from_rpc(broken.value), errors.UpstreamBroken)
