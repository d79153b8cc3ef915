"""What answers become in Anthropic's dialect, whole and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.text.v1 import text_pb2
from services.common.errors import UpstreamBroken
from services.common.vendor_fields import envelope
from services.router.dialects.anthropic import message_reply, thoughts
from tests.dialects import anthropic
from tests.router.anthropic_events import check_stream
from tests.router.anthropic_replies import HI, Told, finished, gathered, gathered_raw, read, streamed, thought, whole
from tests.router.rig import called, said, text


def test_usage_tells_the_cache_apart() -> None:
    """The prompt's count is without what came from a cache or went into one."""
    made = whole([text(said("x")), finished()])
    assert made["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 3,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    assert streamed([text(said("x")), finished()])[-2]["usage"] == made["usage"]


@pytest.mark.parametrize(
    ("how", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"reason": text_pb2.FINISH_REASON_LENGTH}, "max_tokens", None),
        ({"reason": text_pb2.FINISH_REASON_TOOL_CALLS}, "tool_use", None),
        ({"reason": text_pb2.FINISH_REASON_CONTENT_FILTER}, "refusal", None),
        ({"stop_sequence": "END"}, "stop_sequence", "END"),
        ({"refusal": "I will not"}, "refusal", None),
    ],
)
def test_why_an_answer_ended(how: Any, reason: str, sequence: str | None) -> None:
    """The contract's reasons in Anthropic's words, whole and streamed; a refusal is told with its words."""
    for told in (whole([finished(**how)]), streamed([finished(**how)])[-2]["delta"]):
        assert (told["stop_reason"], told["stop_sequence"]) == (reason, sequence)
        if "refusal" in how:
            assert told["stop_details"] == {"type": "refusal", "category": None, "explanation": "I will not"}


@pytest.mark.parametrize("signer", ["anthropic", "google", "openai", ""])
@pytest.mark.parametrize("words", ["", "hm"])
def test_reasoning_survives_a_round_trip(signer: str, words: str) -> None:
    """Whoever signed it: what a client gives back as it came is what the model had said."""
    signature = b"sig" if signer else b""
    if not words and not signature:
        return
    made = [text(thought(words), thought("", signature, signer), said("x")), finished()]
    content = whole(made)["content"]
    assert content == gathered(streamed(made))
    block = content[0]
    assert block["type"] == ("thinking" if words else "redacted_thinking")
    back = read(messages=[*HI, {"role": "assistant", "content": content}]).messages[1].parts[0].reasoning
    assert back == text_pb2.ReasoningPart(text=words, signature=signature, signer=signer)


def test_a_thought_whose_text_was_left_out_keeps_its_form() -> None:
    """It is a thought without words, no redacted one, and comes back as such."""
    (block, _) = whole([text(thought("", thoughts.OMITTED + b"sig", "anthropic"), said("x")), finished()])["content"]
    assert block == {"type": "thinking", "thinking": "", "signature": "sig"}
    assert thoughts.part_from("", "sig").signature == thoughts.OMITTED + b"sig"


@pytest.mark.parametrize("signer", ["anthropic", "openai", ""])
def test_text_of_reasoning_is_left_out_where_that_is_asked_for(signer: str) -> None:
    """Its signature is not, and holds it: the model has the whole thought back."""
    signature = b"sig" if signer else b""
    made = [text(thought("h"), thought("m"), thought("", signature, signer), said("x")), finished()]
    content = whole(made, omits=True)["content"]
    assert (content[0]["type"], content[0]["thinking"]) == ("thinking", "")
    assert gathered(streamed(made, omits=True)) == content
    back = read(messages=[*HI, {"role": "assistant", "content": content}]).messages[1].parts[0].reasoning
    assert back == text_pb2.ReasoningPart(text="hm", signature=signature, signer=signer)


def test_calls_whose_pieces_are_mixed_come_one_after_another() -> None:
    """A later call waits for the end of the one before, and loses nothing."""
    pieces = [
        called(0, "f", '{"a"', "c0"),
        called(1, "g", "{", "c1"),
        called(0, arguments=": 1}"),
        called(1, arguments='"b": 2}'),
        called(2, "h", "", "c2"),
    ]
    made = [text(piece) for piece in pieces] + [finished(text_pb2.FINISH_REASON_TOOL_CALLS)]
    content = whole(made)["content"]
    assert [(block["id"], block["input"]) for block in content] == [("c0", {"a": 1}), ("c1", {"b": 2}), ("c2", {})]
    assert gathered(streamed(made)) == content


def test_a_call_that_goes_on_behind_its_end_is_a_broken_answer() -> None:
    """What cannot be shown is not dropped."""
    pieces = [called(0, "f", "{}", "c0"), called(1, "g", "{}", "c1"), called(0, arguments="more")]
    with pytest.raises(UpstreamBroken):
        whole([text(*pieces), finished()])
    answer: Any = Told([])
    events = message_reply.Events(answer, "r")
    shown = [anthropic.events(events.of(message).decode()) for message in (text(*pieces), finished())]
    assert (shown[0][-1]["type"], shown[0][-1]["error"]["type"], shown[1]) == ("error", "api_error", [])
    check_stream(shown[0][:-1], whole=False)


def carrying(**fields: Any) -> text_pb2.TextEvent:
    return text_pb2.TextEvent(vendor=envelope("anthropic", fields))


def test_pieces_of_kinds_that_nobody_knows_are_gathered_or_told_as_broken() -> None:
    """Their texts go on in their block; without a block they would be lost in an answer that ends well."""
    block = carrying(block={"type": "next_year", "words": ""})
    deltas = [carrying(delta={"type": "next_delta", "words": "a"}), carrying(delta={"words": "b"})]
    answer: Any = Told([text(block, *deltas), finished()])
    assert asyncio.run(message_reply.whole(answer, "r"))["content"] == [{"type": "next_year", "words": "ab"}]
    with pytest.raises(UpstreamBroken):
        whole([text(*deltas), finished()])


PIECES: Final = st.lists(
    st.one_of(
        st.text(max_size=3).map(said),
        st.text(min_size=1, max_size=3).map(thought),
        st.sampled_from(["anthropic", "google", "openai"]).map(lambda signer: thought("", b"s", signer)),
        st.just(thought("", thoughts.OMITTED + b"s", "anthropic")),
        st.tuples(st.integers(0, 2), st.sampled_from(["", "[1", ", 2]", '{"a": 1}'])),
    ),
    max_size=12,
)


@given(PIECES)
def test_every_stream_is_valid_and_gathers_to_the_whole(pieces: Sequence[Any]) -> None:
    """Whatever a model gives in whatever order: by the published types, in their order, and nothing is lost."""
    begun: set[int] = set()
    events = []
    for piece in pieces:
        if isinstance(piece, tuple):
            index, arguments = piece
            new = index not in begun
            begun.add(index)
            piece = called(index, "f" if new else "", arguments, f"c{index}" if new else "")
        events.append(text(piece))
    try:
        made = whole([*events, finished()])
    except UpstreamBroken:
        return
    shown = gathered_raw(streamed([*events, finished()]))
    assert [block["type"] for block in shown] == [block["type"] for block in made["content"]]
    said_text = "".join(event.text.text for each in events for event in each.events)
    assert "".join(block.get("text", "") for block in shown) == said_text
    assert "".join(block.get("text", "") for block in made["content"]) == said_text
