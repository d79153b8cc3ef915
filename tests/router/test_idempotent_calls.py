"""Requests with an idempotency key: done once, and answered alike."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from google.api import httpbody_pb2

from moa.embedding.v1 import embedding_service_pb2
from moa.image.v1 import image_service_pb2
from moa.router.v1 import (
    anthropic_service_pb2,
    google_service_pb2,
    native_service_pb2,
    openai_service_pb2,
    responses_service_pb2,
)
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import (
    IdempotencyKeyReused,
    InvalidField,
    RateLimited,
    RequestRunning,
    Unavailable,
    UpstreamBroken,
)
from services.common.rpc import call as calls
from services.router.idempotency.calls import PAID
from tests.router.idempotency import WHOLE, Context, World, body


@pytest.fixture
def world() -> World:
    return World()


async def test_without_a_key_nothing_is_asked(world: World) -> None:
    """The request goes straight to its handler, with the call's own context, and nobody is asked about a key."""
    seen: list[Any] = []

    async def work(request: Any, context: Any) -> None:
        seen.append(context)

    world.work = work
    context = Context()
    await world.ask(context)
    assert (seen, world.claims.calls) == ([context], 0)


async def test_methods_that_cost_nothing_are_left_as_they_are(world: World) -> None:
    """Their handlers serve."""

    async def handler(request: Any, context: Any) -> None: ...

    assert world.once.around("/moa.router.v1.GoogleService/CountTokens", handler, True) is handler


def test_every_public_method_is_paid_or_known_to_be_free() -> None:
    """Whoever adds a method says which it is."""
    free = {"ListProviders", "ListProviderModels", "ListModels", "GetModel"}
    free |= {"CountTokens", "CountMessageTokens", "CountInputTokens"}
    # What is stored of responses, read and changed.
    free |= {"GetResponse", "CancelResponse", "DeleteResponse", "ListInputItems"}
    free |= {f"{verb}Conversation" for verb in ("Create", "Get", "Update", "Delete")}
    free |= {"CreateConversationItems", "ListConversationItems", "GetConversationItem", "DeleteConversationItem"}
    files = (native_service_pb2, openai_service_pb2, google_service_pb2, text_service_pb2, image_service_pb2)
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (*files, anthropic_service_pb2, responses_service_pb2, embedding_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name not in free
    }
    assert methods == PAID


async def test_the_same_answer_twice(world: World) -> None:
    """Asked again the work is not done again; the answer has the same bytes and headers, what is left of limits as it
    is now, whose answer it is, and counts as a request."""
    first, again = Context("k"), Context("k")
    await world.ask(first)
    await world.ask(again)
    assert world.did == 1
    assert again.messages == first.messages
    assert not first.replayed
    assert again.replayed
    assert ("x-moa-original-request-id", "first") in again.headers
    assert ("x-moa-model", "m") in again.headers
    assert ("x-ratelimit-remaining-tokens", "stale") in first.headers
    assert ("x-ratelimit-remaining-tokens", "90") in again.headers
    assert ("x-ratelimit-remaining-tokens", "stale") not in again.headers
    assert world.admission.arrived == 1


async def test_who_asks_again_keeps_the_pace(world: World) -> None:
    """A replay costs nothing, and is still a request."""
    await world.ask(Context("k"))
    world.admission.paced = True
    with pytest.raises(RateLimited):
        await world.ask(Context("k"))


async def test_other_words_under_the_key_are_refused(world: World) -> None:
    """What is written otherwise and says the same is the same request."""
    await world.ask(Context("k"), b'{"a": 1, "b": 2}')
    same = Context("k")
    await world.ask(same, b' {"b":2,"a":1} ')
    assert same.replayed
    headers_of: list[tuple[bytes, dict[str, str]]] = [
        (b'{"a": 1, "b": 3}', {}),
        (b'{"a": 1, "b": 2}', {"moa-fallback": "none"}),
        (b'{"a": 1, "b": 2}', {"moa-parameters": "strict"}),
    ]
    for said, headers in headers_of:
        with pytest.raises(IdempotencyKeyReused):
            await world.ask(Context("k", **headers), said)


async def test_while_it_runs_it_is_said_to_run(world: World) -> None:
    """With the time after which to ask again."""
    go = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        await go.wait()

    world.work = work
    first = asyncio.create_task(world.ask(Context("k")))
    await asyncio.sleep(0)
    while not world.did:
        await asyncio.sleep(0)
    with pytest.raises(RequestRunning) as refused:
        await world.ask(Context("k"))
    assert refused.value.retry_after_s
    go.set()
    await first


async def test_what_cost_nothing_may_be_asked_again(world: World) -> None:
    """A failure before anything was charged frees the key, also for other words."""

    async def work(request: Any, context: Any) -> None:
        raise Unavailable("away")

    world.work = work
    with pytest.raises(Unavailable):
        await world.ask(Context("k"))
    world.work = world.answer
    context = Context("k")
    await world.ask(context, b'{"a": 2}')
    assert context.messages
    assert not context.replayed


async def test_a_broken_stream_that_cost_nothing_may_be_asked_again(world: World) -> None:
    """Its error is the stream's last event, and not kept."""

    async def work(request: Any, context: Any) -> None:
        calls.current().broken = True
        await context.write(body("error"))

    world.work = work
    await world.ask(Context("k"))
    context = Context("k")
    await world.ask(context)
    assert (world.did, context.replayed) == (2, False)


@pytest.mark.parametrize("in_stream", [True, False])
async def test_a_failure_that_was_charged_is_the_answer(world: World, in_stream: bool) -> None:
    """It was paid for: asked again it is told again, and nothing is charged again."""

    async def work(request: Any, context: Any) -> None:
        calls.current().charged = True
        if not in_stream:
            raise UpstreamBroken("broke", param="p")
        calls.current().broken = True
        await context.write(body("a part, and the error"))

    world.work = work
    expected = contextlib.nullcontext() if in_stream else pytest.raises(UpstreamBroken, match="broke")
    first, again = Context("k"), Context("k")
    with expected:
        await world.ask(first)
    with contextlib.nullcontext() if in_stream else pytest.raises(UpstreamBroken, match="broke") as told:
        await world.ask(again)
    assert world.did == 1
    assert again.messages == first.messages
    headers = again.headers if in_stream else told.value.headers  # type: ignore[union-attr]
    assert ("idempotent-replayed", "true") in headers


async def test_signs_of_life_are_passed_on_and_not_kept(world: World) -> None:
    """Nor are messages without content, by which gRPC's streams show life."""

    async def work(request: Any, context: Any) -> None:
        await context.write_sign(body(": keep-alive"))
        await context.write(httpbody_pb2.HttpBody())
        await context.write(body("said"))

    world.work = work
    first, again = Context("k"), Context("k")
    await world.ask(first)
    await world.ask(again)
    assert len(first.messages) == 3
    assert [message.data for message in again.messages] == [b"said"]


async def test_a_unary_answer_is_returned_again() -> None:
    """A method that returns its message returns the same one."""
    world = World()

    async def work(request: Any, context: Any) -> text_service_pb2.GenerateWholeTextResponse:
        event = text_pb2.TextEvent(text=text_pb2.TextDelta(text=f"said {world.did}"))
        return text_service_pb2.GenerateWholeTextResponse(events=[event])

    world.work = work
    request = text_service_pb2.GenerateWholeTextRequest()
    request.request.model = "m"
    first = await world.ask(Context("k"), method=WHOLE, request=request)
    again = await world.ask(Context("k"), method=WHOLE, request=request)
    assert first == again
    assert world.did == 1
    request.request.model = "other"
    with pytest.raises(IdempotencyKeyReused):
        await world.ask(Context("k"), method=WHOLE, request=request)


async def test_strangers_under_one_account_share_no_keys(world: World) -> None:
    """Those who bring a key of their own are told apart by it, and it is told to nobody."""
    world.own_key = "AIza-one"
    await world.ask(Context("k"))
    world.own_key = "AIza-other"
    context = Context("k")
    await world.ask(context)
    assert not context.replayed
    assert not any("AIza" in stranger for stranger, _, _ in world.claims.claims)


async def test_a_key_that_is_too_long_is_refused(world: World) -> None:
    """By the header's name; 255 characters are taken."""
    await world.ask(Context("k" * 255))
    with pytest.raises(InvalidField) as refused:
        await world.ask(Context("k" * 256))
    assert refused.value.param == "Idempotency-Key"
