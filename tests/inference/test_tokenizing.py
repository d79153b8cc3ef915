"""Texts in slices have the tokens of the whole, whatever kind of tokenizer reads them."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from inference import tokenizing
from inference.fair import Flow
from inference.shared_thread import SharedThread
from inference.tokenizing import SLICE_CHARS, counted, slices, tokenized
from tests.laws import tries

T = TypeVar("T")

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "it's", "1234567", "3.14", "naïve", "café"),
    *("안녕하세요", "저는", "모아입니다", "오늘", "날씨가", "좋네요"),
    *(
        "你好，世界。",
        "今天天气很好，我们去公园吧！",
        "東京都",
        "🌍🎉",
        "e\u0301",
        "!!!",
        "...",
        "http://x.y/z?q=1&r=2",
    ),
    *("def f(x):", "\treturn", "x**2", "<|user|>", "don't", "ＡＢＣ", "𝔘𝔫𝔦", "\u200b", "ÀÉ"),
)
GAPS = (" ", " ", " ", "  ", "\n", "\n\n", "\t", "", ", ", "\r\n", "。", " \n ")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _corpus() -> list[str]:
    rng = random.Random(7)
    return ["".join(rng.choice(WORDS) + rng.choice(GAPS) for _ in range(200)) for _ in range(30)]


def _gpt2() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def _llama3() -> Tokenizer:
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.normalizer = normalizers.NFC()
    return made


def _first_space() -> Tokenizer:
    """Puts a space before each text that has none, as newer SentencePiece models do."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return made


def _more_space() -> Tokenizer:
    """Puts a space before each text, whatever it begins with, as Llama 2 does; merges over nothing but letters."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    return made


def _over_spaces() -> Tokenizer:
    """Merges over spaces: no place can be relied on."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    return made


def _words() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


KINDS = {make.__name__.strip("_"): make for make in (_gpt2, _llama3, _first_space, _more_space, _over_spaces, _words)}


@functools.cache
def tokens_of(kind: str) -> Callable[[str], list[int]]:
    """Train a tokenizer of a kind; return what tokenizes by it."""
    made = KINDS[kind]()
    special = ["<unk>", "[UNK]", "<|user|>"]
    if kind == "words":
        trainer: trainers.Trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)
    else:
        alphabet = pre_tokenizers.ByteLevel.alphabet() if kind in ("gpt2", "llama3") else []
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(_corpus(), trainer)
    made.decoder = decoders.ByteLevel()
    return lambda text: list(made.encode(text, add_special_tokens=False).ids)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut often, so that few words have many cuts."""
    monkeypatch.setattr(tokenizing, "SLICE_CHARS", 40)
    monkeypatch.setattr(tokenizing, "LONGEST_CHARS", 4_000)


def drained(work: Generator[None, None, T]) -> tuple[T, int]:
    """Return what a work returns, and how often it yielded."""
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


texts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=150).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=tries(30), deadline=None)
@given(text=texts)
def test_slices_have_the_tokens_of_the_whole(kind: str, text: str) -> None:
    """Nothing is lost, and no token is another."""
    tokens = tokens_of(kind)
    whole = tokens(text)
    assert drained(tokenized(text, tokens))[0] == whole
    assert drained(counted(text, tokens))[0] == len(whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "over_spaces"])
def test_a_long_text_is_read_in_many_slices(kind: str) -> None:
    """Between which others have their turns."""
    text = " ".join(_corpus())
    found, pauses = drained(tokenized(text, tokens_of(kind)))
    assert found == tokens_of(kind)(text)
    assert pauses > len(text) / 400


@pytest.mark.parametrize("text", ["a" * 50_000, "=" * 50_000, "가" * 50_000, "\n" * 50_000, "ab" * 25_000])
def test_a_word_without_end_is_cut_all_the_same(text: str) -> None:
    """Every piece is bounded, and what is read is what was written: a token becomes two at a cut, no more."""
    tokens = tokens_of("gpt2")
    pieces = list(slices(text, tokens))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 4_000 + 2 * 40
    found, whole = drained(counted(text, tokens))[0], len(tokens(text))
    assert whole <= found <= whole + 4 * len(pieces)


def test_a_tokenizer_that_cannot_be_cut_is_given_the_whole() -> None:
    """Rather than a text that says something else."""

    def tokens(part: str) -> list[int]:
        return [0, *part.encode()]

    text = "many words " * 2_000
    assert list(slices(text, tokens)) == [text]


def test_short_texts_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat's usual prompt is tokenized once, as it is."""
    monkeypatch.setattr(tokenizing, "SLICE_CHARS", SLICE_CHARS)
    asked: list[str] = []

    def tokens(text: str) -> list[int]:
        asked.append(text)
        return [1]

    text = "word " * (SLICE_CHARS // 5)
    assert drained(counted(text, tokens)) == (1, 0)
    assert asked == [text]


async def test_a_long_count_lets_a_chats_prompt_through() -> None:
    """In the thread that both share, the prompt is read amid the long text, long before its end."""
    tokens = tokens_of("llama3")
    turns = SharedThread("test")
    text = " ".join(_corpus() * 4)
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def watched() -> Generator[None, None, int]:
        work = counted(text, tokens)
        while True:
            try:
                next(work)
            except StopIteration as end:
                return int(end.value)
            order.append("slice")
            if not begun.is_set():
                begun.set()
                assert go_on.wait(60)
            yield

    def prompt() -> Generator[None, None, int]:
        order.append("prompt")
        return (yield from counted("hello there", tokens))

    long = asyncio.create_task(turns.do(watched(), flow=Flow("one")))
    assert await asyncio.to_thread(begun.wait, 60)
    chat = asyncio.create_task(turns.do(prompt(), flow=Flow("other")))
    await asyncio.sleep(0)  # it has asked
    go_on.set()
    await chat
    assert await long == len(tokens(text))
    assert order.index("prompt") == 1
    assert order.count("slice") > 10
    turns.stop()
