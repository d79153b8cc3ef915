"""What the router logs of requests: of whom, how much, and that no request waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.quota.v1 import quota_pb2
from moa.requestlog.v1 import request_log_pb2, request_log_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from services.common.errors import Malformed, Unauthenticated
from services.router.adapters.request_log import DROPPED, RequestLog
from services.router.domain.caller import Caller
from services.router.domain.kept_content import MOST_BYTES, content_of
from services.router.operations.image import ImageCall
from services.router.refusals import Refusals
from tests.counters import count_of
from tests.router.rig import ended, said, text
from tests.router.world import Lent, World

OFF, FACTS, CONTENT = (
    quota_pb2.REQUEST_LOGGING_UNSPECIFIED,
    quota_pb2.REQUEST_LOGGING_FACTS,
    quota_pb2.REQUEST_LOGGING_CONTENT,
)
PROMPT = "the plans of the tower"


class Auth:
    """Plays the auth service at the other end of a channel: it keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[request_log_pb2.LoggedRequest] = []
        self.dropped: dict[str, int] = {}
        self.failures: list[grpc.StatusCode] = []
        """How the next calls fail."""
        self.calls = 0
        self.there = asyncio.Event()
        self.there.set()

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        return self.write

    async def write(self, request: request_log_service_pb2.WriteRequestsRequest, **_: Any) -> Any:
        self.calls += 1
        await self.there.wait()
        if self.failures:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self.failures.pop(0), none, none)
        self.requests.extend(request.requests)
        self.dropped.update({each.team_id: each.requests for each in request.dropped})
        return request_log_service_pb2.WriteRequestsResponse()


class Logged:
    """A world whose requests are logged."""

    def __init__(self, wants: quota_pb2.RequestLogging.ValueType, **more: Any) -> None:
        self.auth = Auth()
        played: Any = self.auth
        limits: Any = {"every_s": 0.001}
        limits |= {name: more.pop(name) for name in ("most", "most_bytes", "every_s") if name in more}
        self.log = RequestLog(played, service_token="t" * 16, holder="h", known=lambda _: self.key, **limits)
        self.world = World(request_log=self.log, **more)
        self.world.ledger.request_logging = wants
        self.key: Any = self.world.ledger

    async def ask(self, prompt: str = PROMPT, **fields: Any) -> str:
        """Ask, and read to the end."""
        said, _, _ = await self.world.ask(prompt, caller=caller(), **fields)
        return said

    async def told(self, count: int = 1) -> list[request_log_pb2.LoggedRequest]:
        """Return so many requests, once auth has them."""
        async with asyncio.timeout(20):
            while len(self.auth.requests) < count:
                await asyncio.sleep(0.001)
        assert len(self.auth.requests) == count
        return self.auth.requests


def caller(**more: Any) -> Caller:
    given = {"key": "k", "request_id": "rid", "dialect": "openai", "tags": frozenset(("nightly",))}
    return Caller(**{**given, "began": time.perf_counter(), **more})


@pytest.fixture
async def logged() -> AsyncIterator[Any]:
    """Makes worlds, and ends their logs."""
    made: list[Logged] = []

    def make(wants: quota_pb2.RequestLogging.ValueType = FACTS, **more: Any) -> Logged:
        made.append(Logged(wants, **more))
        return made[-1]

    yield make
    for one in made:
        one.auth.there.set()
        await one.log.aclose()


async def test_a_team_that_says_nothing_has_nothing_noted(logged: Any) -> None:
    """Neither of what succeeds nor of what is refused; nothing runs, and nobody is called."""
    one = logged(OFF)
    await one.ask()
    with pytest.raises(errors.ModelNotFound):
        await one.world.begin(model="nobody", caller=caller())
    assert not one.log.running
    assert (one.log.held_bytes, one.auth.calls) == (0, 0)
    await one.log.aclose()
    assert one.auth.calls == 0


async def test_a_request_is_told_by_its_facts(logged: Any) -> None:
    """Who asked what of whom, what it came to and how long it took; what was said is in no byte of it."""
    one = logged(FACTS)
    usage = usage_pb2.Usage(prompt_tokens=7, completion_tokens=2, exact=True)
    one.world.play("a", errors.UpstreamOverloaded("busy"))
    stop = text_pb2.CandidateFinished(reason=text_pb2.FINISH_REASON_LENGTH)
    one.world.play(
        "b",
        text(said("the secret ")),
        text(said("answer"), text_pb2.TextEvent(candidate_finished=stop)),
        text(text_pb2.TextEvent(finished=text_pb2.Finished(usage=usage))),
    )
    before = time.time()
    assert await one.ask(user="bo") == "the secret answer"
    (told,) = await one.told()
    assert (told.team_id, told.account_id, told.key_id, told.request_id) == ("team", "acc", "key", "rid")
    assert (told.operation, told.dialect, list(told.tags)) == ("text", "openai", ["nightly", "user:bo"])
    assert (told.asked, told.model, told.status, told.error) == ("one/a", "two/b", 200, "")
    assert [(each.model, each.error) for each in told.attempts] == [("one/a", "upstream_overloaded"), ("two/b", "")]
    assert (told.usage.prompt_tokens, told.usage.completion_tokens, told.nano_usd) == (7, 2, 9)
    assert (told.finish_reason, told.stream, told.HasField("content")) == ("length", True, False)
    assert before - 1 < told.at.ToNanoseconds() / 1e9 < time.time() + 1
    assert told.queued.ToNanoseconds() <= told.first.ToNanoseconds() <= told.total.ToNanoseconds()
    data = told.SerializeToString()
    assert b"secret" not in data
    assert PROMPT.encode() not in data
    assert one.log.held_bytes == 0


async def test_content_is_told_where_the_team_wants_it(logged: Any) -> None:
    """The request in the gateway's own words, and the answer's pieces joined."""
    one = logged(CONTENT)
    await one.ask()
    (told,) = await one.told()
    assert told.content.text_request.messages[0].parts[0].text == PROMPT
    assert told.content.text_answer.events[0].text.text == "I am a"
    assert (told.content.request_truncated, told.content.answer_truncated) == (False, False)
    assert one.log.held_bytes == 0


async def test_refusals_and_failures_are_told(logged: Any) -> None:
    """An unknown model, a provider that refuses, and an answer that breaks amid it, each by its reason."""
    one = logged(FACTS, a={"fallback": ()})
    with pytest.raises(errors.ModelNotFound):
        await one.world.begin(model="nobody", caller=caller())
    one.world.play("a", errors.UpstreamRejected("no"))
    with pytest.raises(errors.UpstreamRejected):
        await one.world.begin(caller=caller())
    one.world.play("a", text(said("half an ")), errors.UpstreamBroken("gone"))
    _, events, _ = await one.world.ask(caller=caller())
    assert events[-1].HasField("error")
    told = await one.told(3)
    assert [(each.asked, each.model, each.error, each.nano_usd > 0) for each in told] == [
        ("nobody", "", "model_not_found", False),
        ("one/a", "", "upstream_rejected", False),
        ("one/a", "one/a", "upstream_broken", True),
    ]
    assert [each.status for each in told] == [404, 400, 502]


async def test_what_is_refused_for_want_of_quota_is_told_by_its_models_whole_name(logged: Any) -> None:
    """As what is served: a search for a model finds both."""
    one = logged(FACTS)

    async def reserve(*_: Any, **__: Any) -> Any:
        raise errors.QuotaExhausted("nothing is left")

    one.world.ledger.reserve = reserve
    with pytest.raises(errors.QuotaExhausted):
        await one.world.begin(caller=caller())
    (told,) = await one.told()
    assert (told.asked, told.model, told.error) == ("one/a", "", "quota_exhausted")


async def test_what_was_sent_of_an_answer_that_is_left_is_told(logged: Any) -> None:
    """A caller that leaves amid a stream: its status is 499, its content what it was sent, its cost what is booked."""
    one = logged(CONTENT, a={"fallback": ()})
    reached = asyncio.Event()
    one.world.counts["a"] = 5
    one.world.play("a", text(said("one ")), text(said("two")), reached.set, asyncio.Event(), text(said("never")))
    task = asyncio.create_task(one.ask())
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await one.world.operations.aclose()
    (told,) = await one.told()
    assert (told.status, told.error) == (499, "cancelled")
    assert [event.text.text for event in told.content.text_answer.events] == ["one two"]
    assert (told.usage.prompt_tokens, told.usage.completion_tokens, told.nano_usd) == (5, 2, 7)


async def test_who_leaves_before_the_first_event_is_told_once_the_backend_has_said(logged: Any) -> None:
    """The cost is what was booked in the end."""
    one = logged(FACTS, a={"fallback": ()})
    reached = asyncio.Event()
    one.world.ledger.words["r1"] = usage_pb2.Usage(prompt_tokens=40)
    one.world.play("a", reached.set, asyncio.Event())
    task = asyncio.create_task(one.ask())
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (told,) = await one.told()
    assert (told.status, told.error, told.model, told.nano_usd) == (499, "cancelled", "", 40)


async def test_pictures_are_told_by_their_hash(logged: Any) -> None:
    """Neither those that are given nor those that are made are in the log; where they were and what they hash to is."""
    one = logged(CONTENT, makes="image", a={"fallback": (), "capabilities": frozenset({"edit"})})
    given, made = b"\x89given" * 1000, b"\x89made" * 2000
    picture = image_pb2.ImageEvent(image=image_pb2.Image(image=media_pb2.ImageData(data=made, mime_type="image/png")))
    done = image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage_pb2.Usage(images=1)))
    one.world.play("a", image_service_pb2.GenerateImageResponse(events=[picture, done]))
    request = image_service_pb2.GenerateImageRequest(model="a", prompt=PROMPT, count=1)
    request.images.add(data=given)
    answer = await one.world.operations.begin(ImageCall(request), caller())
    async with answer:
        while (message := await answer.next()) is not None:
            answer.delivered_message(message)
    (told,) = await one.told()
    assert told.content.image_request.prompt == PROMPT
    assert [(each.path, each.size_bytes, each.sha256) for each in told.content.left_out] == [
        ("request.images[0].data", len(given), hashlib.sha256(given).hexdigest()),
        ("answer.image.image.data", len(made), hashlib.sha256(made).hexdigest()),
    ]
    assert told.content.image_answer.events[0].image.image.mime_type == "image/png"
    data = told.SerializeToString()
    assert given[:12] not in data
    assert made[:12] not in data


def test_of_what_is_long_the_beginning_is_kept() -> None:
    """It says so; a cut letter is left out; of very many small parts the first are kept."""
    request = text_service_pb2.GenerateTextRequest(model="a")
    request.messages.add().parts.add(text="가" * MOST_BYTES)
    answer = [text(said("나" * 1000)) for _ in range(MOST_BYTES // 1000)]
    kept = content_of(request, answer)
    assert (kept.request_truncated, kept.answer_truncated) == (True, True)
    assert kept.ByteSize() < 2 * MOST_BYTES + 1000
    prompt, said_back = kept.text_request.messages[0].parts[0].text, kept.text_answer.events[0].text.text
    assert (set(prompt), set(said_back)) == ({"가"}, {"나"})
    assert min(len(prompt), len(said_back)) > MOST_BYTES / 4
    many = text_service_pb2.GenerateTextRequest(model="a")
    for _ in range(20_000):
        many.messages.add()
    kept = content_of(many, [])
    assert kept.request_truncated
    assert 100 < len(kept.text_request.messages) <= MOST_BYTES / 64


def test_the_pieces_of_calls_and_candidates_are_joined_apart() -> None:
    """Two candidates that interleave, and two calls of tools: each is whole, in the order in which they began."""

    def piece(candidate: int, words: str) -> text_pb2.TextEvent:
        return text_pb2.TextEvent(candidate=candidate, text=text_pb2.TextDelta(text=words))

    def call(index: int, arguments: str, name: str = "") -> text_pb2.TextEvent:
        delta = text_pb2.ToolCallDelta(call_index=index, name=name, arguments_json=arguments)
        return text_pb2.TextEvent(tool_call=delta)

    pieces = [piece(0, "a"), piece(1, "x"), piece(0, "b"), piece(1, "y")]
    events = [*pieces, call(0, "{", "f"), call(0, "}"), call(1, "[]", "g")]
    kept = content_of(text_service_pb2.GenerateTextRequest(), [text(*events), text(piece(0, "c"))])
    shown = [(e.candidate, e.text.text, e.tool_call.name, e.tool_call.arguments_json) for e in kept.text_answer.events]
    assert shown == [(0, "ab", "", ""), (1, "xy", "", ""), (0, "", "f", "{}"), (0, "", "g", "[]"), (0, "c", "", "")]
    assert events[0].text.text == "a"


async def test_auth_that_is_away_is_told_later_and_holds_up_nothing(logged: Any) -> None:
    """Beyond what may wait requests are dropped, counted, and served as ever; the counts reach auth with the rest."""
    one = logged(FACTS, most=3)
    one.auth.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    one.auth.there.clear()
    before = count_of(DROPPED.labels("request"))
    for _ in range(8):
        assert await one.ask() == "I am a"
    one.auth.there.set()
    told = await one.told(3)
    assert len({each.log_id for each in told}) == 3
    async with asyncio.timeout(20):
        while one.auth.dropped != {"team": 5}:
            await asyncio.sleep(0.001)
    assert count_of(DROPPED.labels("request")) - before == 5
    assert one.log.held_bytes == 0


async def test_where_bytes_are_short_facts_are_told_without_content(logged: Any) -> None:
    """An answer that finds no room is cut, a prompt that finds none is left out, and memory stays bounded."""
    one = logged(CONTENT, most_bytes=5_000)
    before = count_of(DROPPED.labels("content"))
    one.world.play("a", text(said("y" * 4_900)), text(said("z" * 4_900)), ended())
    await one.ask()
    await one.ask("x" * 6_000)
    cut, without = await one.told(2)
    assert count_of(DROPPED.labels("content")) - before >= 1
    assert not without.HasField("content")
    assert not cut.HasField("content") or cut.content.answer_truncated
    assert one.log.held_bytes == 0


async def test_a_batch_that_auth_fails_on_again_and_again_is_lost_and_counted(logged: Any) -> None:
    """It keeps no other back."""
    one = logged(FACTS)
    one.auth.failures = [grpc.StatusCode.INTERNAL] * 3
    await one.ask()
    async with asyncio.timeout(20):
        while one.auth.failures:
            await asyncio.sleep(0.001)
    await one.ask()
    await one.told(1)
    assert one.auth.dropped == {"team": 1}


async def test_the_end_of_the_process_tells_what_waits(logged: Any) -> None:
    """Also of a caller who left and whose consumption nobody has told yet."""
    one = logged(FACTS, every_s=60.0, a={"fallback": ()})
    await one.ask()
    reached = asyncio.Event()
    one.world.play("a", reached.set, asyncio.Event())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lent, "defer", lambda *_, **__: None)
        task = asyncio.create_task(one.ask())
        await asyncio.wait_for(reached.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert one.auth.requests == []
    await one.log.aclose()
    assert [each.status for each in one.auth.requests] == [200, 499]


async def test_an_answer_that_goes_on_elsewhere_is_told_of_both(logged: Any) -> None:
    """The one that broke with its error, and the one that went on."""
    one = logged(FACTS)
    one.world.play("a", text(said("I am ")), errors.UpstreamBroken("gone"))
    one.world.play("b", text(said("I am b")), ended())
    assert await one.ask() == "I am b"
    (told,) = await one.told()
    assert (told.model, told.status) == ("two/b", 200)
    assert [(each.model, each.error) for each in told.attempts] == [("one/a", "upstream_broken"), ("two/b", "")]


def unasked() -> Any:
    """Return a catalogue, which nobody needs."""
    raise AssertionError("not asked for")


class _Keys:
    """Knows one key, of a team that has its requests logged as is said."""

    def __init__(self, logging: quota_pb2.RequestLogging.ValueType) -> None:
        self.key = SimpleNamespace(key_id="key_1", account_id="acc_1", team_id="team_1", request_logging=logging)

    async def identify(self, key: str) -> Any:
        if key != "known":
            raise Unauthenticated("no such key")
        return self.key


@pytest.mark.parametrize(
    ("method", "key", "logging", "is_logged"),
    [
        ("/moa.router.v1.OpenAIService/CreateChatCompletion", "known", FACTS, True),
        ("/moa.router.v1.OpenAIService/CreateChatCompletion", "known", CONTENT, True),
        ("/moa.router.v1.OpenAIService/CreateChatCompletion", "known", OFF, False),
        ("/moa.router.v1.OpenAIService/CreateChatCompletion", "stranger", FACTS, False),
        ("/moa.router.v1.OpenAIService/GetModel", "known", FACTS, False),
    ],
)
async def test_a_body_that_could_not_be_read_is_logged_with_why(
    method: str, key: str, logging: Any, is_logged: bool
) -> None:
    """Once, and nothing of what was in it; not of strangers, nor where a body is not paid for."""
    auth = Auth()
    line: Any = auth
    log = RequestLog(line, service_token="t" * 16, holder="h", known=lambda _: None, every_s=0.01)
    refusals = Refusals(_Keys(logging), unasked, log=log)
    sent = (("x-api-key", key), ("moa-tags", "nightly"))
    context: Any = SimpleNamespace(invocation_metadata=lambda: sent)
    error = Malformed(f"not JSON: {PROMPT}")
    for _ in range(2):
        await refusals(context, method, error)
    await log.aclose()
    assert len(auth.requests) == is_logged
    for each in auth.requests:
        assert (each.team_id, each.account_id, each.key_id) == ("team_1", "acc_1", "key_1")
        assert (each.status, each.error, each.dialect, list(each.tags)) == (400, "malformed", "openai", ["nightly"])
        assert PROMPT.encode() not in each.SerializeToString()
