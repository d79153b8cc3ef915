"""Requests with an idempotency key: done once, answered alike, whatever becomes of the first caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.api import httpbody_pb2

from moa.embedding.v1 import embedding_service_pb2
from moa.idempotency.v1 import idempotency_service_pb2 as pb
from moa.image.v1 import image_service_pb2
from moa.router.v1 import google_service_pb2, native_service_pb2, openai_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import (
    AnswerLost,
    IdempotencyKeyReused,
    InvalidField,
    MoaError,
    NotFound,
    RateLimited,
    RequestRunning,
    Unavailable,
    UpstreamBroken,
)
from services.common.helper_process import LARGE_BYTES, HelperProcess
from services.common.rpc import call as calls
from services.common.rpc.raw import RawBody
from services.router.dialects.reading import Reading
from services.router.domain.caller import Caller
from services.router.idempotency import calls as module
from services.router.idempotency.calls import PAID, IdempotentCalls
from services.router.idempotency.fingerprint import fingerprint
from services.router.idempotency.fingerprint import said as what_is_said
from tests.router.rig import Identity

CHAT = "/moa.router.v1.OpenAIService/CreateChatCompletion"
WHOLE = "/moa.text.v1.TextService/GenerateWholeText"
TIMEOUT_S = 10


class Person(Identity):
    """A verified key."""

    counter = "key"


class Admission:
    """Knows one key, and counts who arrives."""

    arrived = 0
    paced = False

    async def identify(self, key: str) -> Person:
        return Person("acc1")

    async def arrive(self, key: str) -> Person:
        self.arrived += 1
        if self.paced:
            raise RateLimited("too fast")
        return Person("acc1")


async def _at_once() -> None: ...


class Claims:
    """Keeps answers in memory, as auth keeps them."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str, str], tuple[str, bytes]] = {}
        self.kept: dict[str, pb.StoredAnswer] = {}
        self.lost: dict[str, pb.LostReason.ValueType] = {}
        self.calls = 0
        self.away = 0
        self.answering: Callable[[], Awaitable[None]] = _at_once
        """Awaited when a key was claimed, before that is told."""
        self.told = asyncio.Event()
        """Set whenever something was kept, lost or freed."""

    async def claim(self, request: pb.ClaimRequest) -> pb.ClaimResponse:
        self.calls += 1
        name = (request.stranger, request.operation, request.idempotency_key)
        if name not in self.claims:
            self.claims[name] = (request.claim_id, request.fingerprint)
            await self.answering()
            return pb.ClaimResponse(begun=pb.Begun(claim_id=request.claim_id))
        claim_id, said = self.claims[name]
        if said != request.fingerprint:
            return pb.ClaimResponse(reused=pb.Reused())
        if claim_id in self.kept:
            return pb.ClaimResponse(kept=pb.Kept(claim_id=claim_id, request_id="first"))
        if claim_id in self.lost:
            return pb.ClaimResponse(lost=pb.Lost(reason=self.lost[claim_id]))
        return pb.ClaimResponse(running=pb.Running())

    @asynccontextmanager
    async def renewed(self, begun: pb.Begun) -> AsyncIterator[None]:
        yield

    async def keep(self, claim_id: str, answer: pb.StoredAnswer) -> None:
        await self._reached()
        self.kept[claim_id] = answer

    async def lose(self, claim_id: str, reason: pb.LostReason.ValueType) -> None:
        await self._reached()
        self.lost[claim_id] = reason

    async def free(self, claim_id: str) -> None:
        await self._reached()
        self.claims = {name: held for name, held in self.claims.items() if held[0] != claim_id}

    async def read(self, claim_id: str) -> pb.StoredAnswer:
        if claim_id not in self.kept:
            raise NotFound("gone")
        return self.kept[claim_id]

    async def _reached(self) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        self.told.set()


class Context:
    """A call, as its caller sees it."""

    def __init__(self, key: str = "", **headers: str) -> None:
        self._metadata = [*headers.items(), *([("idempotency-key", key)] if key else [])]
        self.headers: list[tuple[str, str]] = []
        self.messages: list[Any] = []
        self.wrote = asyncio.Event()

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float:
        return 5.0

    async def send_initial_metadata(self, headers: Any) -> None:
        self.headers += headers

    async def write(self, message: Any) -> None:
        self.messages.append(message)
        self.wrote.set()

    @property
    def replayed(self) -> bool:
        return ("idempotent-replayed", "true") in self.headers


class World:
    """Once, and what is behind it."""

    def __init__(self, **settings: Any) -> None:
        self.admission = Admission()
        self.claims = Claims()
        self.own_key = ""
        self.once = IdempotentCalls(
            self.admission, self.claims, begin=self._caller, reading=Reading(), secret="s", **settings
        )
        self.did = 0
        self.work: Callable[[Any, Any], Any] = self.answer
        self.went_on = asyncio.Event()

    def _caller(self, context: Any) -> Caller:
        return Caller(key="k", request_id=f"r{self.did}", own_key=self.own_key)

    async def answer(self, request: Any, context: Any) -> None:
        await context.send_initial_metadata([("x-moa-model", "m"), ("x-ratelimit-remaining-tokens", "stale")])
        await context.write(body(f"answer {self.did}"))

    async def ask(self, context: Context, said: bytes = b'{"a": 1}', method: str = CHAT, **more: Any) -> Any:
        """Ask as a call of its own."""

        async def handler(request: Any, inner: Any) -> Any:
            self.did += 1
            return await self.work(request, inner)

        calls.begin(method, "rid")
        served = self.once.around(method, handler, method == WHOLE)
        request = more.get("request") or httpbody_pb2.HttpBody(content_type="application/json", data=said)
        return await served(request, context)


def body(text: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="application/json", data=text.encode())


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
    free = {"ListProviders", "ListProviderModels", "ListModels", "GetModel", "CountTokens"}
    files = (native_service_pb2, openai_service_pb2, google_service_pb2, text_service_pb2, image_service_pb2)
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (*files, embedding_service_pb2)
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


async def test_who_leaves_while_claiming_leaves_no_claim(world: World) -> None:
    """Nothing was begun, so the key is free again."""
    claimed, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        claimed.set()
        await go.wait()

    world.claims.answering = slow
    leaving = asyncio.create_task(world.ask(Context("k")))
    await asyncio.wait_for(claimed.wait(), TIMEOUT_S)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    assert (world.did, world.claims.claims) == (0, {})


async def test_a_claim_whose_answer_got_lost_is_given_back(world: World) -> None:
    """Whoever cannot tell whether it has claimed refuses the request, does nothing, and leaves the key free."""

    async def lost() -> None:
        raise Unavailable("the connection broke")

    world.claims.answering = lost
    with pytest.raises(Unavailable):
        await world.ask(Context("k"))
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    assert (world.did, world.claims.claims) == (0, {})


async def test_work_goes_on_without_its_caller(world: World) -> None:
    """A caller whose connection breaks asks again, and has the whole answer of the work that was begun."""
    go = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        assert context.time_remaining() is None
        await context.write(body("one "))
        await go.wait()
        for _ in range(40):
            await context.write(body("two"))

    world.work = work
    context = Context("k")
    leaving = asyncio.create_task(world.ask(context))
    await asyncio.wait_for(context.wrote.wait(), TIMEOUT_S)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    again = Context("k")
    await world.ask(again)
    assert b"".join(message.data for message in again.messages) == b"one " + 40 * b"two"
    assert world.did == 1


async def test_a_caller_who_cannot_be_written_to_has_left(world: World) -> None:
    """Its call ends by that error; the work goes on."""

    class Gone(Context):
        async def write(self, message: Any) -> None:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await world.ask(Gone("k"))
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    again = Context("k")
    await world.ask(again)
    assert again.replayed


async def test_a_slow_reader_is_not_outrun(world: World) -> None:
    """The work is some messages ahead of its caller, not all of them."""
    ahead: list[int] = []
    go = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        for n in range(100):
            await context.write(body(f"{n} "))
            ahead.append(n)

    class Slow(Context):
        async def write(self, message: Any) -> None:
            await super().write(message)
            await go.wait()

    world.work = work
    context = Slow("k")
    asking = asyncio.create_task(world.ask(context))
    await asyncio.wait_for(context.wrote.wait(), TIMEOUT_S)
    for _ in range(200):
        await asyncio.sleep(0)
    assert 0 < len(ahead) < 20
    go.set()
    await asking
    assert len(context.messages) == 100


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


async def test_an_answer_beyond_the_bound_is_given_once() -> None:
    """The first caller has all of it; who asks again is told that it is too large to be kept, and not to try again."""
    world = World(answer_bytes=1_000)

    async def work(request: Any, context: Any) -> None:
        for _ in range(4):
            await context.write(body("x" * 400))

    world.work = work
    first = Context("k")
    await world.ask(first)
    assert len(first.messages) == 4
    with pytest.raises(AnswerLost, match="larger than is kept") as refused:
        await world.ask(Context("k"))
    assert ("x-should-retry", "false") in refused.value.headers
    assert world.did == 1


@pytest.mark.parametrize("leaves", ["before the bound", "behind it"])
async def test_nobody_works_for_an_answer_that_nobody_can_have(leaves: str) -> None:
    """Once an answer is too large to be kept, its caller's leaving ends the work as without a key."""
    world = World(answer_bytes=1_000)
    ended, go, large = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        try:
            await context.write(body("x"))
            if leaves == "before the bound":
                await go.wait()
            await context.write(body("x" * 2_000))
            large.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    world.work = work
    context = Context("k")
    asking = asyncio.create_task(world.ask(context))
    await asyncio.wait_for((context.wrote if leaves == "before the bound" else large).wait(), TIMEOUT_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go.set()
    await asyncio.wait_for(ended.wait(), TIMEOUT_S)
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    with pytest.raises(AnswerLost):
        await world.ask(Context("k"))


async def test_memory_of_answers_is_given_back(world: World) -> None:
    """Whether kept, failed or too large."""
    left = world.once.free_bytes

    async def fails(request: Any, context: Any) -> None:
        await context.write(body("a part"))
        raise UpstreamBroken("broke")

    async def large(request: Any, context: Any) -> None:
        for _ in range(5):
            await context.write(body("x" * (4 << 20)))

    for key, work in (("a", world.answer), ("b", fails), ("c", large)):
        world.work = work
        with contextlib.suppress(MoaError):
            await world.ask(Context(key))
    assert world.once.free_bytes == left


async def test_an_answer_waits_for_a_store_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept when the store is back."""
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    world.claims.away = 3
    first, again = Context("k"), Context("k")
    await world.ask(first)
    await world.ask(again)
    assert first.messages == again.messages
    assert world.did == 1


async def test_a_caller_does_not_wait_for_a_store_that_stays_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer ends all the same; until it is kept, who asks again is told that it runs."""
    monkeypatch.setattr(module, "KEEPING_S", 0.0)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    world.claims.away = 1_000_000
    await world.ask(Context("k"))
    with pytest.raises(RequestRunning):
        await world.ask(Context("k"))
    world.claims.away = 0
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    await world.ask(again := Context("k"))
    assert again.replayed


async def test_an_answer_that_has_just_gone_is_lost(world: World) -> None:
    """Between the claim and the reading it may be forgotten."""
    await world.ask(Context("k"))
    claims = world.claims

    async def gone(claim_id: str) -> pb.StoredAnswer:
        raise NotFound("gone")

    claims.read = gone  # type: ignore[method-assign]
    with pytest.raises(AnswerLost):
        await world.ask(Context("k"))


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


async def test_at_the_end_work_without_callers_is_interrupted(world: World) -> None:
    """A router that stops does not wait for it."""
    never = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        await context.write(body("x"))
        await never.wait()

    world.work = work
    context = Context("k")
    asking = asyncio.create_task(world.ask(context))
    await asyncio.wait_for(context.wrote.wait(), TIMEOUT_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(world.once.aclose(0), TIMEOUT_S)
    assert world.once.working == 0


def form(boundary: str, prompt: str = "a cat", image: bytes = b"\x89PNG") -> httpbody_pb2.HttpBody:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{prompt}\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + image
        + b"\r\n",
        f"--{boundary}--\r\n".encode(),
    ]
    return httpbody_pb2.HttpBody(content_type=f"multipart/form-data; boundary={boundary}", data=b"".join(parts))


async def test_a_forms_boundary_is_not_what_it_says() -> None:
    """Clients make it anew each time; fields and files count."""
    first = await fingerprint(form("one"), (), Reading())
    assert await fingerprint(form("two"), (), Reading()) == first
    assert await fingerprint(form("one", prompt="a dog"), (), Reading()) != first
    assert await fingerprint(form("one", image=b"\x89PNX"), (), Reading()) != first


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": "\xff"}', b"[" * 5_000, b'{"a": "line\nbreak"}'])
async def test_what_cannot_be_read_is_itself(data: bytes) -> None:
    """The handler says what is wrong with it."""
    one = httpbody_pb2.HttpBody(content_type="application/json", data=data)
    other = httpbody_pb2.HttpBody(content_type="application/json", data=data + b" ")
    assert await fingerprint(one, (), Reading()) == await fingerprint(one, (), Reading())
    assert await fingerprint(one, (), Reading()) != await fingerprint(other, (), Reading())


async def test_a_large_body_is_not_compared_on_the_loop() -> None:
    """What it says is found out in the helper process, and is what the same request says in fewer bytes."""
    asked: list[tuple[Any, ...]] = []

    class Watched(HelperProcess):
        async def run(self, work: Any, data: Any, account: str, *args: Any, **kwargs: Any) -> Any:
            asked.append((work, len(data), *args))
            return await super().run(work, data, account, *args, **kwargs)

    helper = Watched()
    written = b'{"b": [1, 2],' + b" " * LARGE_BYTES + b'"a": "x"}'
    small = httpbody_pb2.HttpBody(content_type="application/json", data=b'{"a":"x","b":[1,2]}')
    large = httpbody_pb2.HttpBody(content_type="application/json", data=written)
    try:
        one = await fingerprint(large, (), Reading(helper))
        raw = await fingerprint(RawBody(large.SerializeToString()), (), Reading(helper))
        assert [one, raw] == [await fingerprint(small, (), Reading(helper))] * 2
        assert asked == [(what_is_said, len(written), "application/json")] * 2
    finally:
        await helper.aclose()
