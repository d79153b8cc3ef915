"""Page tokens come back from callers as they were, or not at all."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common import page_tokens
from services.common.errors import InvalidField

PLACES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(place=PLACES)
def test_a_place_comes_back_as_it_was(place: object) -> None:
    """Whatever it is made of."""
    assert page_tokens.read(page_tokens.written(place)) == place


def test_a_date_comes_back_as_its_text() -> None:
    """JSON has no dates; a time keeps its time of day, to the microsecond."""
    at = datetime(2026, 11, 29, 10, 20, 30, 40, tzinfo=UTC)
    assert page_tokens.read(page_tokens.written([date(2026, 11, 29), at])) == ["2026-11-29", at.isoformat()]


def test_no_token_is_the_first_page() -> None:
    """Of either kind of list."""
    assert page_tokens.read("") is None
    assert page_tokens.number("") is None


@pytest.mark.parametrize("token", ["x", "é", "W10", "-1", "1" * 19, "١", "[" * 3000, "A" * 5000])
def test_a_token_that_no_list_gave_is_refused(token: str) -> None:
    """With the field's name in the caller's spelling; nothing of it is read on."""
    with pytest.raises(InvalidField, match="pageToken is not of this list; start without one") as refused:
        page_tokens.number(token, param="pageToken")
    assert refused.value.param == "pageToken"
    with pytest.raises(InvalidField):
        page_tokens.read(token if token != "1" * 19 else "x")


@pytest.mark.parametrize("place", [r'"\ud800"', r'{"model": "\udfff"}', r'["\ud83d", 1]'])
def test_half_a_character_is_refused(place: str) -> None:
    """JSON can write it, and no database takes it: it was an internal error."""
    with pytest.raises(InvalidField):
        page_tokens.read(base64.urlsafe_b64encode(place.encode()).decode())


@given(token=st.text(max_size=50))
def test_whatever_a_caller_sends_is_read_or_refused(token: str) -> None:
    """No other error comes of it."""
    for read in (page_tokens.read, page_tokens.number):
        with contextlib.suppress(InvalidField):
            read(token)
