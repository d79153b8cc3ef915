"""From tokens to what a caller sees: whole characters, reasoning apart, stop strings left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.answer import CandidateText, Detokenizer, Splitter, Stopper


def decode_bytes(tokens: list[int]) -> str:
    """Decode tokens that are bytes, as byte-level tokenizers do."""
    return bytes(tokens).decode(errors="replace")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_characters_are_whole_however_they_are_split(text: str) -> None:
    """Fed byte by byte, every piece is whole UTF-8 and the pieces join to the text, emoji and Korean included."""
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.feed(byte) for byte in text.encode()]
    assert "".join(pieces) + detokenizer.rest() == text or "\ufffd" in text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_a_cut_character_is_left_out() -> None:
    """An answer that ends inside a character ends before it."""
    detokenizer = Detokenizer(decode_bytes)
    shown = "".join(detokenizer.feed(byte) for byte in "가나".encode()[:-1])
    assert shown + detokenizer.rest() == "가"


@given(st.data())
def test_reasoning_is_parted_however_it_is_split(data: st.DataObject) -> None:
    """However the text is cut into pieces, reasoning and answer are the same."""
    text = "<think>a < b</think>\n\nyes <b>"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1))))
    splitter = Splitter(inside=False)
    runs = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        runs += splitter.feed(text[start:end])
    runs += splitter.feed("", last=True)
    assert "".join(run for run, reasoning in runs if reasoning) == "a < b"
    assert "".join(run for run, reasoning in runs if not reasoning) == "yes <b>"


REASONING = [
    (False, "plain", "", "plain"),
    (False, "<thi", "", "<thi"),
    (True, "still thinking", "still thinking", ""),
    (True, "done</think>\n\nanswer", "done", "answer"),
    (False, "<think></think>answer", "", "answer"),
    (False, "<think>x</think>a <think> b", "x", "a <think> b"),
]


@pytest.mark.parametrize(("inside", "text", "reasoning", "answer"), REASONING)
def test_reasoning_is_apart(inside: bool, text: str, reasoning: str, answer: str) -> None:
    """Reasoning ends at its closing tag, is opened at most once, and may have been opened by the prompt."""
    splitter = Splitter(inside=inside)
    runs = [run for character in text for run in splitter.feed(character)] + splitter.feed("", last=True)
    assert "".join(run for run, is_reasoning in runs if is_reasoning) == reasoning
    assert "".join(run for run, is_reasoning in runs if not is_reasoning) == answer


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_the_answer_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    """Fed character by character, what is shown is the text before the first stop string, and all of it without."""
    stopper = Stopper(stops)
    shown = ""
    for character in text:
        shown += stopper.feed(character)
        if stopper.met is not None:
            break
    else:
        shown += stopper.feed("", last=True)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert shown == text
    else:
        assert stopper.met is not None
        assert not any(stop in shown for stop in stops)
        assert text.startswith(shown + stopper.met)


def test_tokens_are_counted_by_kind() -> None:
    """Reasoning tokens are counted as such, and as generated ones."""
    answer = CandidateText(decode_bytes, stops=(), inside=True)
    for byte in b"hm</think>yes":
        answer.feed(byte, None)
    answer.end(0)
    assert (answer.tokens, answer.reasoning_tokens) == (14, 10)
