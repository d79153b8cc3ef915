"""Say which words may stand in a place, to somebody who wrote another one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

_MOST: Final = 16
"""How many words are told at most."""
_ALIKE: Final = 0.6
_LONGEST: Final = 100


def either(words: Sequence[str]) -> str:
    """Return words as a choice: `a, b or c`."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


def likest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like another one, or holds it; empty where none does."""
    if not word or len(word) > _LONGEST:
        return ""
    plain = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(word.casefold(), list(plain), n=1, cutoff=_ALIKE)
    return plain[near[0]] if near else next((each for name, each in plain.items() if word.casefold() in name), "")


def step(word: str, known: Sequence[str]) -> str:
    """Return what to write in the place of a word: `; use X`, the likest one, else all where they are few."""
    near = likest(word, known)
    if near:
        return f"; use {near}"
    return f"; use {either(list(known))}" if known and len(known) <= _MOST else ""
