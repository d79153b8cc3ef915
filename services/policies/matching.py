"""Patterns that are looked for in time that grows with the text alone, whatever the text is.

Callers and models choose the text, so an engine that tracks back would let them choose how long it takes. This is the
engine in which Rust's `regex` matches, as pydantic offers it: no look-around, no back-references.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

_AT_ONCE: Final = 65_536
"""Characters that are looked through before others have a turn: some milliseconds with a dear pattern."""


class Pattern:
    """One pattern.

    Args:
        text: As Rust's `regex` writes it.
        span: How many characters a match spans at most; a longer one may be missed.

    Raises ValueError where the engine does not take it.
    """

    def __init__(self, text: str, *, span: int) -> None:
        try:
            self._schema = SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex"))
        except SchemaError as error:
            raise ValueError(f"pattern {text!r} is not taken: {str(error).splitlines()[-1].strip()}") from None
        self._span = span

    def is_in(self, text: str) -> bool:
        """Return whether the pattern matches anywhere in a text, which should be short."""
        return bool(self._schema.isinstance_python(text))

    async def is_in_any(self, texts: Iterable[str]) -> bool:
        """Return whether the pattern matches in any of the texts; others have turns meanwhile."""
        since = 0
        for text in texts:
            for piece in _pieces(text, self._span):
                if self.is_in(piece):
                    return True
                since += len(piece)
                if since >= _AT_ONCE:
                    since = 0
                    await asyncio.sleep(0)
        return False

    async def clear_of(self, text: str) -> int:
        """Return how many first characters of a text are no part of its first match: fewer by the span at most."""
        end = 0
        for piece_end, piece in _ends(text, self._span):
            if self.is_in(piece):
                low, high = 0, len(piece)
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (low, middle) if self.is_in(piece[:middle]) else (middle, high)
                end = piece_end - len(piece) + high
                break
            await asyncio.sleep(0)
        size = max(0, end - self._span)
        # Where a pattern asks what comes behind it, a shorter text may match where a longer one does not.
        return 0 if await self.is_in_any((text[:size],)) else size


def _ends(text: str, span: int) -> Iterator[tuple[int, str]]:
    """Return the pieces of a text, each with where it ends."""
    start = 0
    for piece in _pieces(text, span):
        yield start + len(piece), piece
        start += _AT_ONCE


def _pieces(text: str, span: int) -> Iterator[str]:
    """Return a text in pieces that overlap, so that no match of this span lies across two."""
    if len(text) <= _AT_ONCE + span:
        yield text
        return
    for start in range(0, len(text), _AT_ONCE):
        yield text[start : start + _AT_ONCE + span]
