"""Virtual models: whoever of their targets answers, who is charged for what, and what a caller is told."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Prices, Route, RouteTarget, When
from services.common import errors
from services.common.rpc import call as calls
from services.quota_client import ratelimit
from services.quota_client.labels import Labels
from services.router.dialects import reply
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from services.router.operations.text import TEXT
from services.router.serving import begin
from services.router.tags import tags_of
from tests.router.rig import ended, said, text
from tests.router.test_rescue import finished
from tests.router.world import LIMIT, World

CALLER = Caller(key="k", request_id="rid")


def route(*targets: Any, **more: Any) -> Route:
    rows = tuple(one if isinstance(one, RouteTarget) else RouteTarget(model=one) for one in targets)
    return Route(id=more.pop("name", "team"), targets=rows, **more)


def world(*targets: Any, changes: dict[str, Any] | None = None, **more: Any) -> World:
    return World(routes=[route(*targets, **more)], **(changes or {}))


def headers_of(played: World, answer: Any) -> list[tuple[str, str]]:
    """Return an answer's headers, where nothing is limited."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(played.ledger, "remaining", lambda: None)
        patch.setattr(ratelimit, "headers", lambda remaining: [])
        return reply.headers(answer)


async def test_the_first_answers_under_its_own_name_and_the_route_is_named() -> None:
    """`model` and the headers tell who answers, `x-moa-route` for what; it is charged for what it said."""
    played = world("b", "a")
    said_text, _, answer = await played.ask(model="team")
    assert (said_text, answer.model.full_id, answer.route) == ("I am b", "two/b", "team")
    assert played.ledger.rows == [("r1", 7, 5, "b")]
    headers = dict(headers_of(played, answer))
    assert (headers["x-moa-provider"], headers["x-moa-model"], headers["x-moa-route"]) == ("two", "b", "team")


async def test_a_plain_model_names_no_route() -> None:
    """And nothing is measured for it."""
    played = world("b", "a")
    _, _, answer = await played.ask()
    assert answer.route == ""
    assert "x-moa-route" not in dict(headers_of(played, answer))
    assert len(played.operations.planning.measures) == 0


async def test_the_next_answers_when_the_first_fails() -> None:
    """At once, in the route's order; a target's own fallbacks do not count."""
    played = world("a", "c")
    played.play("a", errors.UpstreamFailed("no"))
    said_text, _, answer = await played.ask(model="team")
    assert (said_text, played.order, played.pauses) == ("I am c", "ac", [])
    assert played.ledger.rows == [("r1", 7, 5, "c")]
    assert answer.asked.full_id == "one/a"


async def test_what_one_target_cannot_do_another_may() -> None:
    """No target was asked for by its name: a refusal of one is no news to the caller while another may answer."""
    played = world("a", "b")
    played.play("a", errors.Unsupported("no", param="top_k"))
    assert (await played.ask(model="team"))[0] == "I am b"
    played.play("a", errors.ContentPolicy("no"))
    with pytest.raises(errors.ContentPolicy):
        await played.ask(model="team")


async def test_the_first_may_be_asked_once_more() -> None:
    """With `on_first_failure: retry`, as a model of its own."""
    played = world("b", "c", on_first_failure="retry")
    played.play("b", errors.UpstreamFailed("no"))
    assert (await played.ask(model="team"))[0] == "I am b"
    assert played.order == "bb"


async def test_who_wants_no_fallback_gets_the_first_or_its_error() -> None:
    """`moa-fallback: none` binds virtual models too."""
    played = world("b", "c")
    played.play("b", *[errors.UpstreamAuth("no")])
    with pytest.raises(errors.UpstreamAuth):
        await played.ask(model="team", caller=Caller(key="k", request_id="rid", fallback=False))
    assert played.order == "b"


async def test_a_key_is_permitted_the_name_and_not_its_targets() -> None:
    """It is the virtual model whose use is asked of auth; a key that may use no target may use it."""
    played = world("a", "b")
    played.ledger.forbidden = {"a", "b", "c"}
    played.play("a", errors.UpstreamFailed("no"))
    assert (await played.ask(model="team"))[0] == "I am b"
    assert played.ledger.asked_for == ["virtual-text/team"]


async def test_the_reservation_is_enough_for_the_dearest_target() -> None:
    """Whoever answers: prices of all that may are its bound."""
    cheap, dear = Prices(input=1, output=1), Prices(input=1, output=1000)
    played = world("a", "b", changes={"a": {"prices": cheap}, "b": {"prices": dear}})
    answer = await played.begin(model="team")
    async with answer:
        assert answer.reservation.nano_usd > 100 * 1000 * 1000
        while await answer.next() is not None:
            pass


async def test_a_request_that_no_target_can_do_is_told_why_of_each() -> None:
    """Conditions and abilities, in the order of the targets; nobody is asked and nothing reserved."""
    eu = RouteTarget(model="a", when=When(tags=("eu",)))
    small = RouteTarget(model="b", when=When(max_prompt_tokens=1))
    played = world(eu, small, "c")
    with pytest.raises(errors.Unsupported) as refused:
        await played.ask(model="team", tools=[text_pb2.Tool(name="x", parameters_json="{}")])
    message = refused.value.message
    assert message.startswith("no target of team can do this request (a: it is for requests with the tag eu; b: it is")
    assert "three/c: model 'c' does not support tools" in message
    assert played.order == ""
    assert played.ledger.made == 0
    tagged = Caller(key="k", request_id="rid", tags=frozenset({"eu"}))
    assert (await played.ask(model="team", caller=tagged))[0] == "I am a"


async def test_unconfigured_targets_are_passed_over() -> None:
    """And where none is configured that is what is told."""
    played = World(routes=[route("a", "b")], configured=("two",))
    assert (await played.ask(model="team"))[0] == "I am b"
    nobody = World(routes=[route("a", "b")], configured=("three",))
    with pytest.raises(errors.ProviderNotConfigured):
        await nobody.ask(model="team")


async def test_a_wrong_request_is_wrong_whoever_is_asked() -> None:
    """It is told as of any model, and not as what no target can do."""
    played = world("a", "b")
    with pytest.raises(errors.InvalidField, match="max_tokens"):
        await played.ask(model="team", max_tokens=0)


async def test_a_stream_that_breaks_goes_on_at_the_next_target() -> None:
    """As with fallbacks: without a seam, under one reservation."""
    capable = {"capabilities": frozenset({"prefill"})}
    played = world("a", "b", changes={"a": capable, "b": capable})
    played.play("a", text(said("Hello ")), errors.UpstreamTimeout("silent"))
    played.play("b", text(said(" world")), ended())
    said_text, _, answer = await played.ask(model="team")
    assert (said_text, answer.model.id) == ("Hello world", "b")
    assert [row[3] for row in played.ledger.rows] == ["voided", "b"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("strategy", ["first_token", "per_token"])
async def test_the_quickest_of_late_is_asked_first(strategy: str, stream: bool) -> None:
    """Each target is measured once, by one request; then the quickest answers, until another is."""
    played = world("a", "b", strategy=strategy)
    took = {"a": 2.0, "b": 1.0}

    def passing(seconds: float) -> Any:
        def passes() -> None:
            played.now += seconds

        return passes

    async def asked() -> str:
        for name, seconds in took.items():
            played.scripts[name] = []
            slow = passing(seconds)
            played.play(name, slow, text(said(f"I am {name}")), slow, finished(7, 20))
        return str((await played.ask(model="team", stream=stream))[2].model.id)

    assert {await asked(), await asked()} == {"a", "b"}
    assert [await asked() for _ in range(3)] == ["b"] * 3
    took["b"] = 8.0
    assert await asked() == "b"
    assert [await asked() for _ in range(3)] == ["a"] * 3
    played.now += 61
    assert {await asked(), await asked()} == {"a", "b"}


async def test_the_cheapest_for_the_request_is_asked_first() -> None:
    """By its prompt and its bound: a target of cheap prompts and dear answers is cheap for long prompts alone."""
    prompts, answers = Prices(input=1, output=100), Prices(input=10, output=1)
    played = world("a", "b", strategy="lowest_price", changes={"a": {"prices": prompts}, "b": {"prices": answers}})
    assert (await played.ask("hi", model="team", max_tokens=100))[2].model.id == "b"
    assert (await played.ask("hi " * 4000, model="team", max_tokens=1))[2].model.id == "a"


@pytest.mark.parametrize(("model", "others"), [("team", True), ("alone", False), ("a", False)])
async def test_who_has_others_does_not_wait_for_a_restart(model: str, others: bool) -> None:
    """Where a model's process is being started again, its stream waits for it only if nobody else may answer."""
    played = World(routes=[route("a", "b"), route("a", name="alone")])
    seen: list[bool] = []
    generate = played.generate_text

    def asked(request: Any, target: Any, caller: Caller, *more: Any, **named: Any) -> Any:
        seen.append(caller.has_others)
        return generate(request, target, caller, *more, **named)

    played.generate_text = asked  # type: ignore[method-assign,assignment]
    await played.ask(model=model)
    assert seen == [others]


async def test_images_are_routed_likewise() -> None:
    """One law for every operation."""
    played = World(makes="image", routes=[route("a", "b", strategy="least_outstanding")])
    played.chance = 0.0
    for name in "ab":
        played.play(name, image_service_pb2.GenerateImageResponse(events=[image_done()]))
    answer = await played.operations.begin(
        ImageCall(image_service_pb2.GenerateImageRequest(model="team", prompt="x")), CALLER
    )
    async with answer:
        while await answer.next() is not None:
            pass
    assert (answer.model.id, answer.route) == ("a", "team")
    assert played.ledger.asked_for == ["virtual-image/team"]


def image_done() -> Any:
    return image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage_pb2.Usage(images=1)))


async def test_tokens_are_counted_as_the_first_target_counts() -> None:
    """It would be asked now."""
    played = world("b", "a")
    played.counts = {"b": 11, "a": 12}
    request = text_service_pb2.CountTokensRequest(model="team")
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="hi")
    assert await played.operations.count_tokens(TEXT, request, CALLER) == 11


@pytest.mark.parametrize("fails", [False, True])
async def test_what_runs_is_counted_down_whatever_happens(fails: bool) -> None:
    """Ends, failures, and callers who leave: least outstanding would else shun a target for ever."""
    played = world("a", "b")
    measures = played.operations.planning.measures
    if fails:
        for name in "ab" * 3:
            played.play(name, errors.UpstreamFailed("no"))
        with pytest.raises(errors.UpstreamFailed):
            await played.ask(model="team")
    else:
        await played.ask(model="team")
        async with await played.begin(model="team"):
            assert measures.view(whole=False).outstanding(played.catalogue.find("a")) == 1
        silent = asyncio.Event()
        played.play("a", silent)
        asking = asyncio.create_task(played.ask(model="team"))
        while len(played.asked) < 3:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    view = measures.view(whole=False)
    assert [view.outstanding(played.catalogue.find(name)) for name in "ab"] == [0, 0]


class TestShadows:
    """Shadows: asked too, heard by nobody, paid by the operator."""

    def shadowed(self) -> World:
        played = world("a", RouteTarget(model="b", shadow=0.5))
        played.chance = 0.4
        return played

    async def drained(self, played: World) -> None:
        while len(played.operations.shadows):
            await asyncio.sleep(0)

    async def test_a_shadow_is_asked_too_and_books_nothing(self) -> None:
        """With a copy of the request, once another has begun to answer; its service is told no reservation."""
        played = self.shadowed()
        said_text, _, _ = await played.ask("a question", model="team")
        await self.drained(played)
        assert (said_text, played.order) == ("I am a", "ab")
        assert played.asked[1].messages == ("a question",)
        assert played.asked[1].reservation == ""
        assert played.ledger.rows == [("r1", 7, 5, "a")]
        assert not played.ledger.open

    async def test_its_failure_is_nobodys(self) -> None:
        """Nor is it asked where nobody answers the caller."""
        played = self.shadowed()
        played.play("b", errors.UpstreamFailed("no"))
        assert (await played.ask(model="team"))[0] == "I am a"
        await self.drained(played)
        for _ in range(3):
            played.play("a", errors.UpstreamAuth("no"))
        played.asked.clear()
        with pytest.raises(errors.UpstreamAuth):
            await played.ask(model="team")
        await self.drained(played)
        assert "b" not in played.order

    async def test_it_ends_with_its_router(self) -> None:
        """A shadow that says nothing keeps no router from ending."""
        played = self.shadowed()
        played.play("b", asyncio.Event())
        await played.ask(model="team")
        while len(played.calls) < 2:
            await asyncio.sleep(0)
        await played.operations.aclose()
        assert played.calls[1].ended == "cancelled"


class TestHedging:
    """Hedging: another target is asked when the first has been silent for longer than is usual for it."""

    async def slow(self, requests: int = 25, **changes: Any) -> World:
        """Return a world whose `a` is known to answer at once."""
        played = world("a", "b", "c", hedge=True, changes=changes)
        for _ in range(requests):
            await played.ask(model="team")
        assert played.order == "a" * requests
        played.asked.clear()
        played.calls.clear()
        played.ledger.rows.clear()
        return played

    async def asking(self, played: World, calls: int = 2) -> asyncio.Task[Any]:
        asking = asyncio.create_task(played.ask(model="team"))
        while len(played.calls) < calls and not asking.done():
            await asyncio.sleep(0)
        return asking

    async def test_the_second_answers_while_the_first_is_silent(self) -> None:
        """It is the caller's answer and charge, once; the first is cancelled, and what is heard of it is void."""
        played = await self.slow()
        played.play("a", asyncio.Event())
        said_text, _, answer = await (await self.asking(played))
        assert (said_text, answer.model.id, played.order) == ("I am b", "b", "ab")
        assert played.calls[0].ended == "cancelled"
        assert [row[1:] for row in played.ledger.rows] == [(0, 0, "voided"), (7, 5, "b")]
        assert [asked.reservation for asked in played.asked] == [played.ledger.rows[0][0], ""]
        assert not played.ledger.open

    async def test_the_one_that_was_left_may_go_on_with_a_broken_answer(self) -> None:
        """It was slow, and is not sick."""
        played = world("a", "b", hedge=True, changes={"a": {"capabilities": frozenset({"prefill"})}})
        for _ in range(25):
            await played.ask(model="team")
        played.asked.clear()
        played.ledger.rows.clear()
        played.play("a", asyncio.Event())
        played.play("b", text(said("Hello")), errors.UpstreamTimeout("silent"))
        played.play("a", text(said(" world")), ended())
        said_text, _, answer = await played.ask(model="team")
        assert (said_text, answer.model.id, played.order) == ("Hello world", "a", "aba")
        assert [row[3] for row in played.ledger.rows] == ["voided", "voided", "a"]

    async def test_the_first_may_still_answer(self) -> None:
        """Then the second is cancelled, and the caller pays for the first under the reservation that it has."""
        played = await self.slow()
        first = asyncio.Event()
        played.play("a", first, text(said("I am a")), ended())
        played.play("b", asyncio.Event())
        asking = await self.asking(played)
        first.set()
        said_text, _, answer = await asking
        assert (said_text, answer.model.id) == ("I am a", "a")
        assert played.calls[1].ended == "cancelled"
        assert [row[1:] for row in played.ledger.rows] == [(7, 5, "a")]

    async def test_a_failure_of_one_is_waited_out_by_the_other(self) -> None:
        """Whichever fails."""
        played = await self.slow()
        first, second = asyncio.Event(), asyncio.Event()
        played.play("a", first, errors.UpstreamFailed("no"))
        played.play("b", second, text(said("I am b")), ended())
        asking = await self.asking(played)
        first.set()
        while played.calls[0].left:
            await asyncio.sleep(0)
        second.set()
        assert (await asking)[0] == "I am b"
        first, second = asyncio.Event(), asyncio.Event()
        played.calls.clear()
        played.play("a", first, text(said("I am a")), ended())
        played.play("b", second, errors.UpstreamFailed("no"))
        asking = await self.asking(played)
        second.set()
        while played.calls[1].left:
            await asyncio.sleep(0)
        first.set()
        assert (await asking)[0] == "I am a"

    async def test_the_next_is_asked_when_both_fail(self) -> None:
        """As if they had been asked one after the other."""
        played = await self.slow()
        both = asyncio.Event()
        played.play("a", both, errors.UpstreamFailed("no"))
        played.play("b", both, errors.UpstreamFailed("no"))
        asking = await self.asking(played)
        both.set()
        assert (await asking)[0] == "I am c"
        assert played.order == "abc"
        assert [row[3] for row in played.ledger.rows if row[1]] == ["c"]

    async def test_who_leaves_meanwhile_owes_the_first_alone(self) -> None:
        """Both calls are cancelled; only the first had a reservation, and its service says what it came to."""
        played = await self.slow()
        played.play("a", asyncio.Event())
        played.play("b", asyncio.Event())
        asking = await self.asking(played)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [call.ended for call in played.calls] == ["cancelled", "cancelled"]
        assert [row[3] for row in played.ledger.rows] == ["a?"]
        assert not played.ledger.open

    async def test_who_shows_that_it_works_is_waited_for(self) -> None:
        """A sign of life is no silence."""
        played = await self.slow()
        first, alive = asyncio.Event(), asyncio.Event()
        played.play("a", text_service_pb2.GenerateTextResponse(), alive, text(said("I am a")), ended())
        paused = asyncio.Event()

        async def pause(seconds: float) -> None:
            await paused.wait()

        played.pause = pause  # type: ignore[method-assign]
        asking = await self.asking(played, 1)
        while len(played.calls[0].left) > 2:
            await asyncio.sleep(0)
        paused.set()
        for _ in range(5):
            await asyncio.sleep(0)
        alive.set()
        assert (await asking)[0] == "I am a"
        assert played.order == "a"
        assert not first.is_set()

    async def test_a_tenth_of_the_requests_may_be_hedged(self) -> None:
        """When all targets slow down at once, twice the load would not help."""
        played = await self.slow(25)
        hedged = 0
        for _ in range(10):
            played.calls.clear()
            first = asyncio.Event()
            played.play("a", first, text(said("I am a")), ended())
            asking = asyncio.create_task(played.ask(model="team"))
            for _ in range(30):
                await asyncio.sleep(0)
            hedged += len(played.calls) - 1
            first.set()
            await asking
        assert hedged == 3

    @pytest.mark.parametrize("whole", [False, True])
    @pytest.mark.parametrize("first_wins", [False, True])
    async def test_whoever_answers_gets_no_more_than_is_set_aside(self, whole: bool, first_wins: bool) -> None:
        """An answer that nobody bounded grows as its own pieces are delivered, and ends where nothing more can be had,
        though the other call was asked after it, or before."""
        long = {"max_output_tokens": 100_000, "context_tokens": 200_000}
        played = world("a", "b", hedge=True, changes={"a": long, "b": long})
        for _ in range(25):
            await played.ask(model="team", stream=not whole)
        gate, never = asyncio.Event(), asyncio.Event()
        pieces = [text(said(" word" * 80)) for _ in range(50)]
        events = {"a": gate if first_wins else never, "b": never if first_wins else gate}
        for name, event in events.items():
            played.play(name, event, *pieces, ended())
        played.calls.clear()
        played.ledger.left = 10**6
        asking = asyncio.create_task(played.ask(model="team", max_tokens=None, stream=not whole))
        while len(played.calls) < 2:
            await asyncio.sleep(0)
        played.ledger.left = 0
        gate.set()
        said_text, events_seen, answer = await asking
        assert answer.model.id == ("a" if first_wins else "b")
        finished = [event.candidate_finished for event in events_seen if event.HasField("candidate_finished")]
        assert [one.reason for one in finished] == [text_pb2.FINISH_REASON_LENGTH]
        assert len(said_text) <= LIMIT * 4
        assert answer.usage.completion_tokens <= LIMIT

    async def test_it_is_off_unless_said(self) -> None:
        """A silent target is waited for as ever."""
        played = world("a", "b")
        for _ in range(25):
            await played.ask(model="team")
        first = asyncio.Event()
        played.play("a", first, text(said("I am a")), ended())
        played.calls.clear()
        asking = await self.asking(played, 1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(played.calls) == 1
        first.set()
        assert (await asking)[0] == "I am a"


@pytest.mark.parametrize(
    ("header", "tags"),
    [("eu", {"eu"}), (" eu , ,batch,eu", {"eu", "batch"}), ("", set()), ("x" * 64, {"x" * 64})],
)
def test_tags_are_read_in_one_place(header: str, tags: set[str]) -> None:
    """Parted by commas, without the space around them."""
    assert tags_of([("other", "x"), ("moa-tags", header)]) == tags


def test_tags_of_several_headers_count_together() -> None:
    """HTTP lets each hop add its own: the tag that a proxy of the operator's adds counts beside the caller's."""
    assert tags_of([("moa-tags", "x"), ("other", "y"), ("moa-tags", "eu, gdpr")]) == {"x", "eu", "gdpr"}
    with pytest.raises(errors.InvalidField, match="at most 8 tags, not 9"):
        tags_of([("moa-tags", ",".join("abcde")), ("moa-tags", ",".join("fghi"))])


@pytest.mark.parametrize("header", ["x" * 65, "é" * 33, ",".join("abcdefghi")])
def test_wrong_tags_are_refused(header: str) -> None:
    """At most eight, of 64 bytes each."""
    with pytest.raises(errors.InvalidField, match="moa-tags"):
        tags_of([("moa-tags", header)])


async def test_what_a_request_is_called_goes_with_its_reservation() -> None:
    """The dialect that it came in, its tags, and its user: reports of spending group by them."""
    played = World()
    caller = Caller(key="k", request_id="rid", dialect="openai", tags=frozenset({"eu", "batch"}))
    *_, answer = await played.ask(caller=caller, user="ann")
    assert answer.reservation.labels == Labels("openai", ("batch", "eu", "user:ann"))


@pytest.mark.parametrize(
    ("method", "dialect"),
    [
        ("/moa.router.v1.OpenAIService/CreateChatCompletion", "openai"),
        ("/moa.router.v1.GoogleService/GenerateContent", "google"),
        ("/moa.text.v1.TextService/GenerateText", "grpc"),
    ],
)
def test_a_caller_speaks_the_dialect_of_the_method(method: str, dialect: str) -> None:
    """By the registry's name; what is no dialect's is the gRPC API."""
    calls.begin(method, "rid")
    context = Mock(invocation_metadata=lambda: (), time_remaining=lambda: None)
    assert begin(context).dialect == dialect
