"""Guesses of token counts."""

from __future__ import annotations

import pytest

from services.common.estimate import tokens_of
from tests.common.test_metering import TEXTS


@pytest.mark.parametrize("text", TEXTS)
def test_letters_beyond_ascii_weigh_more(text: str) -> None:
    """Four ASCII letters make a token, and four others three."""
    ascii_count = sum(letter < "\x80" for letter in text)
    assert tokens_of(text) == -(-(ascii_count + 3 * (len(text) - ascii_count)) // 4)
