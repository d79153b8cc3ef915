"""Answers of Messages: their ends, counts, pieces and failures."""

from __future__ import annotations

import json

import pytest

from moa.text.v1.text_pb2 import (
    FinishReason,
    ReasoningOptions,
)
from services.common import errors
from services.providers.anthropic.text.read import AnthropicReader
from tests.text.anthropic_played import OVER, STOP, Json, begun, delta, read, read_whole, start
from tests.text.harness import chat, ending_of, reasoning_of, text_of


def test_the_counts_of_both_ends_are_one_usage() -> None:
    """The beginning tells the prompt and what its cache gave and took; the end the completion, and may correct all."""
    first = begun(input_tokens=10, cache_read_input_tokens=70, cache_creation_input_tokens=20, output_tokens=1)
    word = delta(0, "text_delta", text="hi")
    details = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}, "input_tokens": None}
    events, reader = read(first, word, {**STOP, "usage": details}, OVER)
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens) == (100, 70, 20)
    assert (usage.completion_tokens, usage.reasoning_tokens, usage.exact) == (9, 4, True)
    assert reader.upstream_id == "msg_1"
    corrected, _ = read(first, word, {**STOP, "usage": {"input_tokens": 11, "output_tokens": 9}}, OVER)
    assert corrected[-1].finished.usage.prompt_tokens == 101


def test_a_caller_who_leaves_owes_the_prompt_that_was_told() -> None:
    """Its counts come with the first piece, and the completion so far is estimated until the end tells it."""
    events, _ = read(
        begun(input_tokens=10, cache_read_input_tokens=90, output_tokens=1), delta(0, "text_delta", text="hi")
    )
    (told,) = [each.usage for each in events if each.HasField("usage")]
    assert (told.prompt_tokens, told.cached_tokens, told.exact) == (100, 90, False)
    assert told.completion_tokens > 0


def test_a_wrong_count_at_the_end_leaves_the_prompts() -> None:
    """What was told right is kept."""
    for wrong in ("many", [1], -1):
        first = begun(input_tokens=12, output_tokens=1)
        events, reader = read(
            first, delta(0, "text_delta", text="hi"), {**STOP, "usage": {"output_tokens": wrong}}, OVER
        )
        assert reader.failure is None
        usage = events[-1].finished.usage
        assert (usage.prompt_tokens, usage.exact) == (12, False)
        assert 0 < usage.completion_tokens < 100


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.FINISH_REASON_STOP),
        ("stop_sequence", FinishReason.FINISH_REASON_STOP),
        ("max_tokens", FinishReason.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", FinishReason.FINISH_REASON_LENGTH),
        ("refusal", FinishReason.FINISH_REASON_CONTENT_FILTER),
    ],
)
def test_stop_reasons(word: str, reason: FinishReason.ValueType) -> None:
    """Each is an end of the contract's, with what stopped it, or why it was refused."""
    details = {"type": "refusal", "category": "cyber", "explanation": "not this"}
    ended = {"stop_reason": word, "stop_sequence": "END" if word == "stop_sequence" else None, "stop_details": details}
    streamed, _ = read(delta(0, "text_delta", text="hi"), {"type": "message_delta", "delta": ended}, OVER)
    whole, _ = read_whole(content=[{"type": "text", "text": "hi"}], **ended)
    for events in (streamed, whole):
        (end,) = [each.candidate_finished for each in events if each.HasField("candidate_finished")]
        assert end.reason == reason
        assert end.stop_sequence == ("END" if word == "stop_sequence" else "")
        assert end.refusal == ("not this" if word == "refusal" else "")


@pytest.mark.parametrize("word", ["pause_turn", "compaction", "new_word"])
def test_what_is_no_end_is_no_success(word: str) -> None:
    """An answer that would have to be asked to go on is not whole."""
    ended = {"stop_reason": word}
    events, reader = read(delta(0, "text_delta", text="hi"), {"type": "message_delta", "delta": ended}, OVER)
    assert isinstance(reader.failure, errors.UpstreamFailed)
    assert not any(each.HasField("finished") for each in events)
    assert isinstance(read_whole(content=[{"type": "text", "text": "hi"}], **ended)[1].failure, errors.UpstreamFailed)


SERVER_TOOL = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}


@pytest.mark.parametrize(
    "piece",
    [
        start(1, **SERVER_TOOL),
        delta(0, "image_delta", data="x"),
        delta(0, "text_delta", words="x"),
        delta(7, "input_json_delta", partial_json="{"),
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_start", "index": 0},
        {"type": "aside", "text": "lost"},
        start(0, type="tool_use", id="t", name=""),
        start(0, type="redacted_thinking"),
    ],
    ids=lambda piece: json.dumps(piece)[:60],
)
def test_a_piece_that_cannot_be_told_fails_the_answer(piece: Json) -> None:
    """What is dropped must not look like success."""
    events, reader = read(delta(0, "text_delta", text="good"), piece, STOP, OVER)
    assert isinstance(reader.failure, errors.Unsupported | errors.UpstreamBroken)
    assert text_of(events) == "good"
    assert not any(each.HasField("finished") for each in events)


def test_what_says_nothing_breaks_nothing() -> None:
    """Pings, sources of a text, ends of blocks, and events that nobody knows and that hold no word."""
    cited = delta(0, "citations_delta", citation={"type": "char_location", "cited_text": "x"})
    quiet = ({"type": "ping"}, cited, {"type": "content_block_stop", "index": 0}, {"type": "pulse", "n": 1})
    events, reader = read(
        *quiet, start(0, type="text", text="go"), delta(0, "text_delta", text="od"), *quiet, STOP, OVER
    )
    assert reader.failure is None
    assert text_of(events) == "good"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", errors.UpstreamOverloaded),
        ("rate_limit_error", errors.UpstreamRateLimited),
        ("api_error", errors.UpstreamFailed),
        ("timeout_error", errors.UpstreamTimeout),
        ("new_error", errors.UpstreamFailed),
    ],
)
def test_an_error_amid_the_stream_is_typed(kind: str, error: type[errors.MoaError]) -> None:
    """After the status is sent its type alone decides; so it does in a body of status 200."""
    failed = {"type": "error", "error": {"type": kind, "message": "x"}}
    events, reader = read(delta(0, "text_delta", text="good"), failed, STOP, OVER)
    assert isinstance(reader.failure, error)
    assert text_of(events) == "good"
    whole = AnthropicReader(chat(), streamed=False)
    whole.feed(json.dumps(failed).encode())
    whole.end()
    assert isinstance(whole.failure, error)


def test_halves_of_a_character_are_joined() -> None:
    """In text, thinking and arguments, where a relay cuts within one; a half without its other fails the answer."""
    pieces = [
        delta(0, "thinking_delta", thinking="x\ud83d"),
        delta(0, "thinking_delta", thinking="\ude00"),
        delta(1, "text_delta", text="A\ud83d"),
        delta(1, "text_delta", text="\ude00"),
        start(2, type="tool_use", id="t", name="f"),
        delta(2, "input_json_delta", partial_json='{"x":"\ud83d'),
        delta(2, "input_json_delta", partial_json='\ude00"}'),
    ]
    stop = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    data = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in [*pieces, stop, OVER])
    reader = AnthropicReader(chat(reasoning=ReasoningOptions(include=True)), streamed=True)
    events = [*reader.feed(data), *reader.end()]
    assert (text_of(events), reasoning_of(events), reader.failure) == ("A😀", "x😀", None)
    assert "".join(each.tool_call.arguments_json for each in events) == '{"x":"😀"}'
    broken = AnthropicReader(chat(), streamed=True)
    broken.feed(b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in [pieces[2], STOP, OVER]))
    assert isinstance(broken.failure, errors.UpstreamBroken)


def test_an_answer_that_does_not_say_why_it_ended_is_one() -> None:
    """Where it has words and its last event, or came whole; without a word it is none."""
    word = delta(0, "text_delta", text="good")
    for events, reader in (read(word, OVER), read_whole(content=[{"type": "text", "text": "good"}])):
        assert (text_of(events), reader.failure) == ("good", None)
        assert ending_of(events) == FinishReason.FINISH_REASON_STOP
    assert isinstance(read(OVER)[1].failure, errors.UpstreamBroken)


def test_a_stream_without_its_end_is_broken() -> None:
    """No stop reason came, whatever else did; a stop reason without the last event is an end."""
    word = delta(0, "text_delta", text="good")
    assert isinstance(read(begun(input_tokens=1), word)[1].failure, errors.UpstreamBroken)
    assert read(word, STOP)[1].failure is None
