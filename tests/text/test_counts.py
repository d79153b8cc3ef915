"""The one reader of what providers count."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.catalogue import Model
from services.common.estimate import MOST
from services.providers.counts import Spelling, count_in, read_usage
from services.text.targets import ADAPTERS
from tests.text.harness import chat

SPELLING = Spelling(
    prompt=(("p",), ("more",)), completion=(("c",),), cached=(("d", "cached"),), reasoning=("reasoning",)
)
OMITTING = SPELLING._replace(omits_zeros=True)


def usage(text: str, spelling: Spelling = SPELLING) -> tuple[int, int, int, int, set[str]]:
    """Read a usage object with 70 and 50 tokens as estimates of prompt and completion."""
    found = read_usage(msgspec.Raw(text.encode()), spelling)
    assert found is not None
    made = found.usage(70, 50)
    assert made.exact == (not found.faults)
    counts = made.prompt_tokens, made.completion_tokens, made.cached_tokens, made.reasoning_tokens
    return (*counts, set(found.faults))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"p": 7, "c": 5}', (7, 5, 0, 0, set())),
        ('{"p": 7, "more": 2, "c": 5, "d": {"cached": 9}, "reasoning": 5}', (9, 5, 9, 5, set())),
        ('{"p": 7, "c": 5, "d": null, "reasoning": null, "more": null}', (7, 5, 0, 0, set())),
        ('{"p": 0, "c": 0}', (0, 0, 0, 0, set())),
        ('{"p": 4294967295, "c": 5}', (MOST, 5, 0, 0, set())),
        ('{"p": 4294967296, "c": 5}', (70, 5, 0, 0, {"range"})),
        ('{"p": 4294967295, "more": 1, "c": 5}', (70, 5, 0, 0, {"range"})),
        ('{"p": 1' + "0" * 30 + ', "c": 5}', (70, 5, 0, 0, {"range"})),
        ('{"p": null, "c": 5}', (70, 5, 0, 0, {"missing"})),
        ('{"c": 5}', (70, 5, 0, 0, {"missing"})),
        ("{}", (70, 50, 0, 0, {"missing"})),
        ('{"p": "7", "c": 5}', (7, 5, 0, 0, {"type"})),
        ('{"p": "seven", "c": 5}', (70, 5, 0, 0, {"type"})),
        ('{"p": "٧", "c": 5}', (70, 5, 0, 0, {"type"})),
        ('{"p": true, "c": [5]}', (70, 50, 0, 0, {"type"})),
        ('{"p": {}, "c": 5}', (70, 5, 0, 0, {"type"})),
        ('{"p": -1, "c": 5}', (70, 5, 0, 0, {"negative"})),
        ('{"p": 7, "c": 5, "d": {"cached": -3}}', (7, 5, 0, 0, {"negative"})),
        ('{"p": 7.0, "c": 4.2}', (7, 5, 0, 0, {"fraction"})),
        ('{"p": 7, "c": 5, "d": {"cached": 8}}', (7, 5, 7, 0, {"cached"})),
        ('{"p": 7, "c": 5, "reasoning": 6}', (7, 5, 0, 5, {"reasoning"})),
        ('{"p": 7, "c": 5, "d": [], "more": "x"}', (7, 5, 0, 0, {"type"})),
        ('{"p": 7, "c": 5, "d": {"cached": 1' + "0" * 40 + "}}", (7, 5, 7, 0, {"cached"})),
        ('{"p": 1e999, "c": 5}', (70, 50, 0, 0, {"type"})),
        ('{"p": 1' + "0" * 6000 + ', "c": 5}', (70, 50, 0, 0, {"type"})),
        ('"none"', (70, 50, 0, 0, {"type"})),
        ("[1, 2]", (70, 50, 0, 0, {"type"})),
        ("12", (70, 50, 0, 0, {"type"})),
    ],
)
def test_wrong_counts_are_kept_in_bounds_or_estimated(text: str, expected: Any) -> None:
    """What is readable is kept in bounds; the rest is the gateway's estimate; neither is said to be exact."""
    assert usage(text) == expected


def test_a_protocol_that_leaves_zeros_out_is_taken_at_its_word() -> None:
    """As Google's JSON does; a null is wrong there too."""
    assert usage('{"p": 7}', OMITTING) == (7, 0, 0, 0, set())
    assert usage('{"p": 7, "c": null}', OMITTING) == (7, 50, 0, 0, {"missing"})


@pytest.mark.parametrize("text", ["", "null"])
def test_no_usage_is_no_wrong_usage(text: str) -> None:
    """Most pieces of a stream tell nothing."""
    assert read_usage(msgspec.Raw(text.encode()), SPELLING) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["p", "c", "d", "cached"]), inner),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["p", "c", "d", "more", "reasoning"]), _JSON) | _JSON)
def test_no_usage_makes_an_answer_fail(written: Any) -> None:
    """Whatever a provider writes becomes counts that the contract holds and that do not contradict each other."""
    for spelling in (SPELLING, OMITTING):
        found = read_usage(msgspec.Raw(json.dumps(written).encode()), spelling)
        if found is None:
            assert written is None
            continue
        made = found.usage(70, 50)
        assert made.cached_tokens <= made.prompt_tokens <= MOST
        assert made.reasoning_tokens <= made.completion_tokens <= MOST


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ('{"n": 31}', 31),
        ('{"n": 99999999999}', MOST),
        ('{"n": "31"}', None),
        ('{"n": -1}', None),
        ('{"n": 3.5}', None),
        ("{}", None),
        ("[]", None),
        ("<html>", None),
        ('"\\ud83d"', None),
    ],
)
def test_a_count_that_was_asked_for_is_a_number_or_nothing(body: str, count: int | None) -> None:
    """There is no good answer around it that were worth keeping."""
    assert count_in(body.encode(), ("n",)) == count


@pytest.mark.parametrize("name", ["openai", "gemini"])
def test_counts_amid_a_stream_are_told_at_once(name: str) -> None:
    """A caller who leaves owes the prompt as it was reported, whoever books it: the router has to know."""
    reader = ADAPTERS[name].reader(chat(), Model(id="m", provider="p"), {"content-type": "text/event-stream"})
    piece = {
        "openai": {
            "choices": [{"index": 0, "delta": {"content": "Hello"}}],
            "usage": {"prompt_tokens": 33, "completion_tokens": 1},
        },
        "gemini": {
            "candidates": [{"content": {"parts": [{"text": "Hello"}]}}],
            "usageMetadata": {"promptTokenCount": 33, "candidatesTokenCount": 1},
        },
    }[name]
    events = reader.feed(b"data: " + json.dumps(piece).encode() + b"\n\n")
    assert [event.WhichOneof("event") for event in events] == ["text", "usage"]
    assert (events[-1].usage.prompt_tokens, reader.meter.owed().prompt_tokens) == (33, 33)
