"""Policies: in which order they judge, what becomes of what they judge, and what an answer costs that one stops."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from services.policies import Asked, Change, Hook, Refuse, Stop, cap
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from services.router.operations.text import TextCall
from tests.router.hooks import Adds, Fails, Watching, denying, world
from tests.router.rig import called, ended, said, text, thought
from tests.router.world import World

STOPPED = text_pb2.FINISH_REASON_CONTENT_FILTER


async def test_policies_judge_in_their_order() -> None:
    """Each sees a request, and an event, as the one before it left it."""
    there = world(Adds("1"), Adds("2"))
    there.play("a", text(said("x")), ended())
    got, _, _ = await there.ask("hi")
    assert there.asked[0].messages == ("hi12",)
    assert got == "x12"


async def test_what_the_first_refuses_the_second_is_not_shown() -> None:
    """The caller is told the reason; nobody is asked, and nothing is reserved."""
    there = world(denying("secret", message="no secrets here"), Fails())
    with pytest.raises(errors.ContentPolicy, match="no secrets here"):
        await there.ask("a secret")
    assert there.asked == []
    assert there.ledger.made == 0


async def test_a_refused_request_counts_in_its_keys_pace() -> None:
    """Else whoever is refused could have policies judge without end."""
    there = world(denying("secret"))
    arrived = 0

    async def arrive(key: str) -> Any:
        nonlocal arrived
        arrived += 1
        raise errors.RateLimited("at most 1 request a minute")

    there.ledger.arrive = arrive  # type: ignore[method-assign]
    with pytest.raises(errors.RateLimited):
        await there.ask("secret")
    assert arrived == 1


async def test_words_of_every_turn_are_looked_through() -> None:
    """A pattern is found in what comes in two parts of one turn as well, for a model reads them as one text."""
    there = world(denying("(?i)SECRET"))
    request = text_service_pb2.GenerateTextRequest(model="a", max_tokens=9)
    parts = request.messages.add(role=text_pb2.ROLE_USER).parts
    parts.add(text="sec")
    parts.add(text="ret")
    with pytest.raises(errors.ContentPolicy):
        await there.operations.begin(TextCall(request), Caller(key="k", request_id="rid"))


def cut(words: str, at: list[int]) -> list[str]:
    """Cut a text into pieces."""
    points = sorted({0, len(words), *(min(each, len(words)) for each in at)})
    return [words[start:end] for start, end in pairwise(points)]


@given(
    st.text("ab ", max_size=30), st.text("ab ", max_size=30), st.lists(st.integers(0, 70), max_size=12), st.booleans()
)
def test_no_piece_of_what_is_denied_is_delivered(before: str, after: str, at: list[int], reasons: bool) -> None:
    """However a provider cuts its answer, the caller gets nothing of a match, and most of what came before it; what is
    delivered is charged, with the prompt as it was reported, and the model is told to stop."""
    pieces = cut(f"{before}x1234y{after}", at)
    there = world(denying(r"x\d+y", span=8))
    make = thought if reasons else said
    usage = text_pb2.TextEvent(usage=usage_pb2.Usage(prompt_tokens=7))
    there.play("a", text(usage), *(text(make(piece)) for piece in pieces), ended())
    _, events, answer = asyncio.run(there.ask())
    got = "".join(event.text.text + event.reasoning.text for event in events)
    assert before.startswith(got)
    assert len(got) >= len(before) - 8
    assert [event.candidate_finished.reason for event in events if event.HasField("candidate_finished")] == [STOPPED]
    assert events[-1].HasField("finished")
    assert answer.succeeded
    (row,) = there.ledger.rows
    shown = sum(1 for event in events if event.text.text or event.reasoning.text)
    assert row[1] == 7
    assert shown <= row[2] <= max(len(got), shown)


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=12), st.integers(0, 12))
def test_what_no_policy_minds_is_delivered_whole(pieces: list[str], holds: int) -> None:
    """Held back or not, no letter is lost, doubled or moved from one kind of piece to another."""
    there = world(Watching(lambda event: None, holds=holds), Watching(lambda event: None, holds=3))
    said_so = [text(said(piece)) for piece in pieces]
    there.play("a", text(thought("why ")), *said_so, text(called(0, "f", "{}")), ended())
    _, events, _ = asyncio.run(there.ask())
    assert "".join(event.text.text for event in events) == "".join(pieces)
    assert "".join(event.reasoning.text for event in events) == "why "
    assert "".join(event.tool_call.arguments_json for event in events) == "{}"
    assert next(event.tool_call.name for event in events if event.HasField("tool_call")) == "f"
    order = [kind for event in events if (kind := event.WhichOneof("event")) in ("reasoning", "text", "tool_call")]
    assert order == sorted(order, key=["reasoning", "text", "tool_call"].index)
    assert [row[1:3] for row in there.ledger.rows] == [(7, 5)]


async def test_candidates_are_held_back_apart() -> None:
    """A match lies within one candidate; half of it in each is none."""
    there = world(denying("xy", span=4), a={"capabilities": {"candidates"}})
    there.play("a", text(said("x", 0), said("y", 1)), text(said("-", 0), said("-", 1)), ended(candidates=2))
    _, events, _ = await there.ask(candidates=2)
    pieces = {n: "".join(event.text.text for event in events if event.candidate == n) for n in (0, 1)}
    assert pieces == {0: "x-", 1: "y-"}


async def test_log_probabilities_wait_with_their_words() -> None:
    """They hold the words too: what is not delivered is not told by them."""
    there = world(denying("secret", span=6))
    tokens = [text_pb2.TokenLogprob(token=token) for token in ("the ", "sec", "ret")]
    piece = text_pb2.TextEvent(text=text_pb2.TextDelta(text="the sec", logprobs=tokens[:2]))
    rest = text_pb2.TextEvent(text=text_pb2.TextDelta(text="ret", logprobs=tokens[2:]))
    there.play("a", text(piece), text(rest), ended())
    got, events, _ = await there.ask()
    assert got == "the "
    assert [each.token for event in events for each in event.text.logprobs] == []


async def test_a_whole_answer_is_stopped_too() -> None:
    """Asked for whole, it is what came before, ends by the finish reason, and costs the prompt and that."""
    there = world(denying("secret", span=6))
    there.play("a", text(said("It is a well known secret"), *ended().events))
    got, events, _ = await there.ask(stream=False)
    assert got == "It is a well known "
    assert [row[1] for row in there.ledger.rows] == [7]
    assert events[-2].candidate_finished.reason == STOPPED


async def test_an_answer_that_goes_on_elsewhere_is_judged_across_the_seam() -> None:
    """What was held back when a target died was not delivered: the next one says it again, and half a match in each is
    found."""
    there = world(denying("secret", span=8), a={"capabilities": {"prefill"}})
    there.play("a", text(said("a long story of a sec")), errors.UpstreamBroken("broke"))
    there.play("a", text(said(" of a secret")), ended())
    got, events, _ = await there.ask()
    assert there.asked[1].messages[-1] == "a long story"
    assert "sec" not in got
    assert events[-2].candidate_finished.reason == STOPPED


async def test_a_stopped_image_is_an_error_and_costs_nothing() -> None:
    """Images have no finish reason; those that were delivered before are charged."""
    there = world(Watching(lambda event: Stop("no") if event.index else None), makes="image")
    images = [image_pb2.ImageEvent(index=n, image=image_pb2.Image()) for n in (0, 1)]
    there.play("a", *(image_service_pb2.GenerateImageResponse(events=[event]) for event in images))
    request = image_service_pb2.GenerateImageRequest(model="a", prompt="x", count=2)
    shown: list[Any] = []
    async with await there.operations.begin(ImageCall(request), Caller(key="k", request_id="rid")) as answer:
        while (message := await answer.next()) is not None:
            shown += message.events
            answer.delivered_message(message)
    assert [event.WhichOneof("event") for event in shown] == ["image", "error"]
    assert shown[-1].error.reason == errors.ContentPolicy.reason
    assert [row[2] for row in there.ledger.rows] == [1]


async def test_a_cap_lowers_what_is_asked_for() -> None:
    """A longer answer, or one without a bound, is asked for as long as is allowed; shorter ones are as they were."""
    there = world(cap.made({"most_output_tokens": 20}))
    for wanted in (100, 10):
        await there.ask(max_tokens=wanted)
    assert [asked.bound for asked in there.asked] == [20, 10]


@pytest.mark.parametrize(
    ("settings", "prompt", "refused"),
    [
        ({"most_characters": 5}, "123456", "at most 5 characters"),
        ({"most_characters": 6}, "123456", ""),
        ({"languages": ["en"]}, "안녕하세요 여러분 반갑습니다", "these languages: en"),
        ({"languages": ["en", "ko"]}, "Hello, 안녕하세요 여러분 반갑습니다", ""),
        ({"languages": ["ko"]}, "한국어 문장에 낱말 abc 하나", ""),
        ({"languages": ["en"]}, "π ≈ 3.14, naïve café, 東京", ""),
        ({"languages": ["en"], "foreign_letters": 2}, "東京", "these languages"),
        ({"most_messages": 1}, "one", ""),
    ],
)
async def test_a_cap_refuses_by_size_and_language(settings: dict[str, Any], prompt: str, refused: str) -> None:
    """A language is told by its script; a few letters of another are a name."""
    there = world(cap.made(settings))
    if not refused:
        await there.ask(prompt)
        return
    with pytest.raises(errors.ContentPolicy, match=refused):
        await there.ask(prompt)


async def test_a_costly_pattern_takes_no_longer_by_a_callers_choice() -> None:
    """The text that makes an engine which tracks back take years is looked through like any other."""
    there = world(denying(r"(a|aa)+b", r"(x+x+)+y"))
    await asyncio.wait_for(there.ask("a" * 5_000 + "x" * 5_000), 60)


async def test_a_changed_request_is_judged_as_if_it_had_come_so() -> None:
    """Another model than the caller asked for answers; one that the key may not use is refused."""

    class Elsewhere(Hook):
        async def before(self, asked: Asked, request: Any) -> Change:
            changed = type(request)()
            changed.CopyFrom(request)
            changed.model, changed.provider = "two/b", ""
            return Change(changed)

    there = world(Elsewhere())
    assert (await there.ask())[0] == "I am b"


async def test_a_policy_cannot_make_another_operations_request() -> None:
    """A wrong type is a failure of the policy, told as one."""

    class Wrong(Hook):
        async def before(self, asked: Asked, request: Any) -> Change:
            return Change(image_service_pb2.GenerateImageRequest())

    with pytest.raises(errors.Unavailable):
        await world(Wrong()).ask()


async def _calls(there: World, pieces: int) -> Counter[str]:
    """Return how often each function of the router ran for one answer."""
    there.play("a", *(text(said("word ")) for _ in range(pieces)), ended())
    seen: Counter[str] = Counter()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and "/services/" in frame.f_code.co_filename:
            seen[f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_code.co_qualname}"] += 1

    sys.setprofile(note)
    try:
        await there.ask()
    finally:
        sys.setprofile(None)
    return seen


async def test_without_policies_nothing_is_called_for_them() -> None:
    """Neither for a request nor for an event: what is not used costs a comparison. With one that judges requests alone
    an event costs nothing more either."""
    bare = await _calls(World(), 50)
    assert not [name for name in bare if "polic" in name or "judged" in name or "screen" in name.lower()]

    class Allows(Hook):
        async def before(self, asked: Asked, request: Any) -> Refuse | None:
            return None

    few, many = [await _calls(world(Allows()), pieces) for pieces in (1, 50)]
    plain_few, plain_many = [await _calls(World(), pieces) for pieces in (1, 50)]
    assert many - few == plain_many - plain_few
