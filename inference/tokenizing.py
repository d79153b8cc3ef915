"""Tokenize long texts in slices, to the tokens that the whole text has."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any, Final

SLICE_CHARS: Final = 8 * 1024
"""A text is cut behind so many characters, at the next place where it can be."""
LONGEST_CHARS: Final = 128 * 1024
"""A text without such a place is cut behind so many all the same, which may make a token of it two."""
_AROUND: Final = 64
"""Characters on each side by which a place is tried."""
_TRIES: Final = 8
_SEARCHED: Final = 1024
_PLACES: Final = re.compile(r"(?<=\S)[ \n]|(?<=[。！？；，、])(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")
"""Where tokenizers part a text before they look for tokens: before spaces, behind CJK punctuation, before numbers."""
_PLAIN: Final = "The quick brown fox jumps over the lazy dog"

Tokens = Callable[[str], list[int]]


def tokens_by(tokenizer: Any) -> Tokens:
    """Return what tokenizes by a tokenizer of transformers, special tokens by their names and none around a text.

    Its library's own call is twice as fast as transformers', and other threads run meanwhile.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    backend.no_truncation()
    backend.no_padding()
    return lambda text: list(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def tokenized(text: str, tokens: Tokens) -> Generator[None, None, list[int]]:
    """Return a text's tokens; yield between slices."""
    found: list[int] = []
    for number, piece in enumerate(slices(text, tokens)):
        if number:
            yield
        found += tokens(piece)
    return found


def counted(text: str, tokens: Tokens) -> Generator[None, None, int]:
    """Return how many tokens a text has; yield between slices."""
    count = 0
    for number, piece in enumerate(slices(text, tokens)):
        if number:
            yield
        count += len(tokens(piece))
    return count


def slices(text: str, tokens: Tokens) -> Iterator[str]:
    """Yield a text in slices whose tokens, one after another, are the text's own.

    A cut is made only where the tokens of what is around it are those of its two sides. Tokenizers that put a space
    before each text are given the second side without its own. A text that offers no place (a word of megabytes) is
    cut where it must be, unless the tokenizer cannot be had to part even a plain sentence: then it is given the whole.
    """
    at = 0
    look = SLICE_CHARS
    while len(text) - look > SLICE_CHARS // 4:
        cut = _cut(text, look, tokens)
        if cut is None and look - at >= LONGEST_CHARS and _joins(_PLAIN, 19, 19, tokens):
            cut = look, look
        if cut is None:
            look += SLICE_CHARS
            continue
        end, following = cut
        yield text[at:end]
        at, look = following, following + SLICE_CHARS
    yield text[at:]


def _cut(text: str, start: int, tokens: Tokens) -> tuple[int, int] | None:
    """Return the first place from `start` on where a text can be cut: where a slice ends, and where the next begins."""
    for place in islice(_PLACES.finditer(text, start, start + _SEARCHED), _TRIES):
        end = place.start()
        if _joins(text, end, end, tokens):
            return end, end
        if text[end] == " " and _joins(text, end, end + 1, tokens):
            return end, end + 1
    return None


def _joins(text: str, end: int, following: int, tokens: Tokens) -> bool:
    """Return whether what is around a place has the tokens of its two sides, up to `end` and from `following` on."""
    first, last = max(0, end - _AROUND), end + _AROUND
    return tokens(text[first:last]) == tokens(text[first:end]) + tokens(text[following:last])
