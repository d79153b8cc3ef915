"""Attempts before the first event: who is asked after whom, who is told what, and who pays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.quota.v1 import quota_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from services.common.errors import MoaError
from services.router.domain.caller import Caller
from tests.router.rig import text
from tests.router.world import World


def failing(kind: type[MoaError], **more: Any) -> MoaError:
    return kind("no", **more)


ONWARD = (
    errors.UpstreamAuth,
    errors.ModelMisconfigured,
    errors.UpstreamRateLimited,
    errors.UpstreamOverloaded,
    errors.UpstreamBroken,
    errors.UpstreamFailed,
    errors.UpstreamTimeout,
    errors.Unavailable,
    errors.QueueFull,
    errors.ModelNotFound,
    errors.ProviderNotConfigured,
    errors.Internal,
)
TOLD = (
    errors.InvalidField,
    errors.Unsupported,
    errors.ContentPolicy,
    errors.TooLarge,
    errors.UnsupportedMedia,
    errors.UpstreamRejected,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.DeadlineExceeded,
    errors.Cancelled,
)
LEFT = (errors.UpstreamTimeout, errors.Unavailable)
"""After these the call's other end may still run."""


@pytest.mark.parametrize("kind", ONWARD, ids=lambda kind: kind.__name__)
async def test_the_next_target_answers_at_once(kind: type[MoaError]) -> None:
    """What is the target's fault is no reason to wait: the next is asked without a pause, answers under its own name
    and is all that is charged. A call that may still run at its other end leaves an id that is worth nothing."""
    world = World()
    world.play("a", failing(kind))
    said, events, answer = await world.ask()
    assert (said, world.order, world.pauses) == ("I am b", "ab", [])
    assert (answer.model.full_id, answer.asked.full_id) == ("two/b", "one/a")
    assert [event.WhichOneof("event") for event in events] == ["text", "candidate_finished", "finished"]
    if kind in LEFT:
        assert world.ledger.rows == [("r1", 0, 0, "voided"), ("r2", 7, 5, "b")]
    else:
        assert world.ledger.rows == [("r1", 7, 5, "b")]
    assert [asked.reservation for asked in world.asked] == ["r1", world.ledger.rows[-1][0]]
    assert not world.ledger.open


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
async def test_what_the_caller_has_to_mend_is_told_at_once(kind: type[MoaError]) -> None:
    """Nobody else is asked, and nothing is charged."""
    world = World()
    world.play("a", failing(kind, param="x"))
    with pytest.raises(kind):
        await world.ask()
    assert (world.order, world.pauses) == ("a", [])
    [(_, *tokens, _)] = world.ledger.rows
    assert tokens == [0, 0]


async def test_another_targets_limits_are_not_the_callers_news() -> None:
    """A fallback that cannot do what is asked is passed over; its content policy, though, ends the search."""
    world = World()
    world.play("a", failing(errors.UpstreamFailed))
    world.play("b", failing(errors.Unsupported, param="top_k"))
    assert (await world.ask())[0] == "I am c"
    world.play("a", failing(errors.UpstreamFailed))
    world.play("b", failing(errors.ContentPolicy))
    with pytest.raises(errors.ContentPolicy):
        await world.ask()
    assert world.order == "abc" + "ab"


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        (errors.UpstreamFailed, "abcabcabc"),
        (errors.UpstreamOverloaded, "abcabcabc"),
        (errors.UpstreamBroken, "abcabcabc"),
        (errors.Unavailable, "abcabcabc"),
        (errors.UpstreamTimeout, "abc"),
        (errors.UpstreamAuth, "abc"),
        (errors.ModelMisconfigured, "abc"),
        (errors.QueueFull, "abc"),
        (errors.UpstreamRateLimited, "abc"),
    ],
)
async def test_what_may_pass_is_tried_again_after_a_pause(kind: type[MoaError], order: str) -> None:
    """Twice more, after a pause that grows; a target that fell silent is never asked twice, nor is one that another
    try would not mend."""
    world = World()
    for model in "abc" * 3:
        world.play(model, failing(kind))
    with pytest.raises(kind):
        await world.ask()
    assert world.order == order
    assert world.pauses == ([0.5, 1.0] if len(order) > 3 else [])
    assert all(tokens == [0, 0] for _, *tokens, _ in world.ledger.rows)
    assert not world.ledger.open


@pytest.mark.parametrize(
    ("kind", "order"),
    [(errors.UpstreamBroken, "abc"), (errors.UpstreamOverloaded, "abcabcabc")],
    ids=["hung up", "busy"],
)
async def test_who_showed_life_and_hung_up_is_not_asked_again(kind: type[MoaError], order: str) -> None:
    """A stream of comments that closes was begun: each target is asked once, and clients are told not to try again."""
    world = World()
    for model in "abc" * 3:
        world.play(model, text_service_pb2.GenerateTextResponse(), failing(kind))
    with pytest.raises(kind) as told:
        await world.ask()
    assert world.order == order
    assert ("x-should-retry", "false") in told.value.headers


async def test_a_lone_model_is_asked_again() -> None:
    """Without fallbacks the same is tried again, and answers."""
    world = World(a={"fallback": ()})
    world.play("a", failing(errors.UpstreamOverloaded))
    world.play("a", failing(errors.UpstreamFailed))
    assert (await world.ask())[0] == "I am a"
    assert world.pauses == [0.5, 1.0]


async def test_a_retry_time_is_obeyed_up_to_a_bound() -> None:
    """Who asks to be left alone for three seconds is; who asks for ten is not waited for, and the caller is told."""
    world = World(a={"fallback": ()})
    world.play("a", failing(errors.UpstreamRateLimited, retry_after_s=3))
    assert (await world.ask())[0] == "I am a"
    assert world.pauses == [3]
    world.play("a", failing(errors.UpstreamRateLimited, retry_after_s=10))
    with pytest.raises(errors.UpstreamRateLimited) as caught:
        await world.ask()
    assert (caught.value.retry_after_s, world.pauses) == (10, [3])


async def test_the_soonest_is_asked_first_after_a_pause() -> None:
    """Each target rests for as long as it asked, no longer."""
    world = World()
    world.play("a", failing(errors.UpstreamOverloaded, retry_after_s=4))
    world.play("b", failing(errors.UpstreamOverloaded, retry_after_s=2))
    world.play("c", failing(errors.UpstreamAuth))
    assert (await world.ask())[0] == "I am b"
    assert (world.order, world.pauses) == ("abcb", [2])


async def test_nobody_waits_beyond_the_callers_deadline() -> None:
    """Where the caller would be gone by then, it is told now."""
    world = World(a={"fallback": ()})
    world.play("a", failing(errors.UpstreamOverloaded))
    with pytest.raises(errors.UpstreamOverloaded):
        await world.ask(caller=Caller(key="k", request_id="r", until=world.now + 0.4))
    assert (world.order, world.pauses) == ("a", [])


async def test_a_task_is_not_tried_again_here() -> None:
    """Its service tries it again by itself: here other targets are asked, but none twice."""
    world = World()
    world.ledger.operation = quota_pb2.OPERATION_TASK
    for model in "abc":
        world.play(model, failing(errors.UpstreamFailed))
    with pytest.raises(errors.UpstreamFailed):
        await world.ask()
    assert (world.order, world.pauses) == ("abc", [])


async def test_who_cannot_answer_is_passed_over() -> None:
    """Not configured, not permitted to the key, not capable, too short a context: each is skipped unasked."""
    down = failing(errors.UpstreamFailed)
    unconfigured = World(configured=("one", "three"))
    forbidden = World()
    forbidden.ledger.forbidden = {"b"}
    incapable = World(a={"capabilities": {"logprobs"}}, c={"capabilities": {"logprobs"}})
    short = World(b={"context_tokens": 10})
    for world in (unconfigured, forbidden, incapable, short):
        world.play("a", down)
        asked = {"sampling": text_pb2.Sampling(logprobs=True)} if world is incapable else {}
        assert (await world.ask("x" * 3_000, **asked))[0] == "I am c"
        assert world.order == "ac"


async def test_a_caller_may_want_no_other_model() -> None:
    """With the switch off only the model that was asked for is asked."""
    world = World()
    for _ in range(3):
        world.play("a", failing(errors.UpstreamFailed))
    with pytest.raises(errors.UpstreamFailed):
        await world.ask(caller=Caller(key="k", request_id="r", fallback=False))
    assert world.order == "aaa"


@pytest.mark.parametrize(("b", "c", "order"), [(8_000, 100_000, "ac"), (0, 100_000, "ac"), (16_000, 100_000, "ab")])
async def test_a_long_prompt_goes_to_a_longer_context(b: int, c: int, order: str) -> None:
    """A provider that says that the prompt does not fit is followed by those with more room, known to have it."""
    world = World(a={"context_tokens": 8_000}, b={"context_tokens": b}, c={"context_tokens": c})
    world.play("a", failing(errors.ContextTooLong))
    await world.ask()
    assert world.order == order


async def test_a_prompt_that_plainly_does_not_fit_is_not_sent_there() -> None:
    """Where another model's context is long enough, that one is asked first; where none is, nothing is reserved."""
    world = World(a={"context_tokens": 10}, b={"context_tokens": 10}, c={"context_tokens": 100_000})
    assert (await world.ask("x" * 3_000))[0] == "I am c"
    assert world.order == "c"
    world = World(a={"context_tokens": 10}, b={"context_tokens": 10}, c={"context_tokens": 10})
    with pytest.raises(errors.ContextTooLong):
        await world.ask("x" * 3_000)
    assert not world.ledger.made
    world = World(a={"context_tokens": 10}, b={"context_tokens": 10}, c={"context_tokens": 100_000})
    world.ledger.forbidden = {"c"}
    with pytest.raises(errors.ContextTooLong):
        await world.ask("x" * 3_000)
    assert not world.asked
    assert not world.ledger.open


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ((errors.UpstreamAuth, errors.ModelNotFound, errors.UpstreamAuth), errors.UpstreamAuth),
        ((errors.UpstreamAuth, errors.UpstreamFailed, errors.UpstreamTimeout), errors.UpstreamFailed),
        ((errors.UpstreamAuth, errors.QueueFull, errors.UpstreamTimeout), errors.QueueFull),
        ((errors.ContextTooLong, errors.UpstreamAuth, errors.ModelNotFound), errors.ContextTooLong),
    ],
)
async def test_the_most_useful_failure_is_told(failures: tuple[type[MoaError], ...], told: type[MoaError]) -> None:
    """When all fail, what passes by itself is told before what does not; else what the asked model said."""
    world = World(a={"context_tokens": 100}, b={"context_tokens": 1_000}, c={"context_tokens": 1_000})
    for kind, model in zip(failures, "abc", strict=True):
        for _ in range(3):
            world.play(model, failing(kind))
    with pytest.raises(told):
        await world.ask()


async def test_the_soonest_hope_is_told() -> None:
    """Of several that pass, the one that passes soonest tells when to come again."""
    world = World()
    for model, seconds in (("a", 60), ("b", 20), ("c", 40)):
        world.play(model, failing(errors.UpstreamRateLimited, retry_after_s=seconds))
    with pytest.raises(errors.UpstreamRateLimited) as caught:
        await world.ask()
    assert caught.value.retry_after_s == 20


async def test_the_bound_is_the_answering_models() -> None:
    """No target is asked for more than it can give, nor for more than is reserved."""
    world = World(b={"max_output_tokens": 64})
    world.play("a", failing(errors.UpstreamFailed))
    world.play("b", failing(errors.UpstreamFailed))
    await world.ask(max_tokens=100)
    assert [(asked.model, asked.bound) for asked in world.asked] == [("a", 100), ("b", 64), ("c", 100)]


async def test_an_error_event_in_the_first_message_is_a_failure_before_it() -> None:
    """However a service says it, the next target is asked."""
    world = World()
    error = errors.detail_of(failing(errors.UpstreamBroken), "rid")
    world.play("a", text(text_pb2.TextEvent(error=error)))
    world.play("b")
    assert (await world.ask())[0] == "I am c"


KINDS = st.sampled_from([*ONWARD, *TOLD, errors.ContextTooLong])


@given(st.lists(st.tuples(st.sampled_from("abc"), KINDS, st.sampled_from([None, 0.0, 1.0, 9.0])), max_size=9))
async def test_it_is_charged_once_or_not_at_all(script: list[tuple[str, type[MoaError], float | None]]) -> None:
    """Whatever fails in whatever order: either one answer, charged once to who gave it, or one error, charged nothing;
    no reservation stays open, none of the silent is asked twice, and nobody is asked more than three times."""
    world = World()
    for model, kind, wait_s in script:
        world.play(model, failing(kind, retry_after_s=wait_s))
    try:
        said, _, answer = await world.ask()
    except MoaError:
        charged = []
    else:
        assert said == f"I am {answer.model.id}"
        charged = [(7, 5, answer.model.id)]
    assert [row[1:] for row in world.ledger.rows if row[1]] == charged
    assert not world.ledger.open
    silent = [model for model, kind, _ in script if kind is errors.UpstreamTimeout]
    assert all(world.order.count(model) <= 3 for model in "abc")
    for model in silent:
        calls = [k for m, k, _ in script if m == model][: world.order.count(model)]
        assert errors.UpstreamTimeout not in calls[:-1]


@pytest.mark.parametrize(
    ("failure", "order", "pauses"),
    [
        (failing(errors.UpstreamFailed), "aa", [0.5]),
        (failing(errors.UpstreamOverloaded), "aa", [0.5]),
        (failing(errors.UpstreamRateLimited, retry_after_s=1.5), "aa", [1.5]),
        (failing(errors.UpstreamRateLimited, retry_after_s=3), "ab", []),
        (failing(errors.UpstreamRateLimited), "ab", []),
        (failing(errors.UpstreamTimeout), "ab", []),
        (failing(errors.UpstreamAuth), "ab", []),
    ],
)
async def test_a_first_failure_that_passes_soon_is_waited_for(
    failure: MoaError, order: str, pauses: list[float]
) -> None:
    """With `on_first_failure: retry`, as where nothing is said, the model that was asked for is asked once more, if
    that need not wait for more than two seconds; else the next is asked at once."""
    world = World(a={"on_first_failure": "retry"})
    world.play("a", failure)
    assert (await world.ask())[0] == f"I am {order[-1]}"
    assert (world.order, world.pauses) == (order, pauses)


async def test_it_is_waited_for_once() -> None:
    """A second failure goes to the next, as the others' failures do; nobody is called more than three times."""
    world = World(a={"on_first_failure": "retry"})
    for model in "abc" * 3:
        world.play(model, failing(errors.UpstreamFailed))
    with pytest.raises(errors.UpstreamFailed):
        await world.ask()
    assert world.order == "aabcabcbc"


async def test_a_target_that_is_well_again_is_back_within_half_a_minute() -> None:
    """After a minute of failures, probed again and again, the longest time until the next probe is 20 s."""
    world = World()
    while world.now < 160:
        world.play("a", failing(errors.UpstreamOverloaded))
        await world.ask()
        world.now += 1.0
    world.scripts["a"].clear()
    well_at = world.now
    while (await world.ask())[0] != "I am a":
        world.now += 1.0
    assert world.now - well_at <= 21
