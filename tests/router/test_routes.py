"""Virtual models: whoever of their targets answers, who is charged for what, and what a caller is told."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Prices, RouteTarget, When
from services.common import errors
from services.common.rpc import call as calls
from services.quota_client import ratelimit
from services.quota_client.labels import Labels
from services.quota_client.tags import tags_of
from services.router.dialects import reply
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from services.router.operations.text import TEXT
from services.router.serving import begin
from tests.router.rig import ended, said, text
from tests.router.routed import route, world
from tests.router.test_rescue import finished
from tests.router.world import World

CALLER = Caller(key="k", request_id="rid")


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
    """It is the virtual model whose use is asked of auth, and which budgets count; a key that may use no target may use
    it."""
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
