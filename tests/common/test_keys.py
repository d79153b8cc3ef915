"""Where a call's API key is looked for."""

from __future__ import annotations

import pytest

from services.common.errors import Unauthenticated
from services.common.rpc.keys import key_of


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-api-key", "moa-one"), ("x-api-key", "moa-two")],
        [("x-api-key", "moa-one"), ("authorization", "Bearer moa-two")],
        [("authorization", "Bearer moa-one"), ("authorization", "Bearer moa-two")],
        [("authorization", "Bearer moa-one"), ("x-goog-api-key", "moa-two")],
        [("x-goog-api-key", "moa-one,moa-two")],
        [("authorization", "Bearer moa-one,Bearer moa-two")],
    ],
)
def test_two_keys_are_refused(metadata: list[tuple[str, str]]) -> None:
    """Also where one header comes twice, as gRPC allows: nobody can tell which key is meant to pay."""
    for given in (metadata, metadata[::-1]):
        with pytest.raises(Unauthenticated, match="two different API keys; send one"):
            key_of(given)


def test_one_key_said_twice_is_one() -> None:
    """The same key in several places is no contradiction."""
    for more in ([("x-api-key", "moa-one")], [("authorization", "Bearer moa-one, bearer moa-one")], []):
        assert key_of([("x-api-key", "moa-one"), *more, ("authorization", "Bearer moa-one")]) == "moa-one"


@pytest.mark.parametrize("value", ["moa-one", "sk-one", " ses-one "])
def test_a_key_without_its_scheme_is_said_to_be_that(value: str) -> None:
    """The word Bearer is missing, and the refusal says so; another key beside it counts, another scheme is none."""
    with pytest.raises(Unauthenticated, match="send Authorization: Bearer"):
        key_of([("authorization", value)])
    assert key_of([("authorization", value), ("x-api-key", "moa-two")]) == "moa-two"
    assert key_of([("authorization", "Basic bW9h")]) == ""


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_bearer_twice_is_said_to_be_that(header: str) -> None:
    """A client puts the word before what was configured with it; another key beside it counts."""
    for value in ("Bearer Bearer moa-one", "bearer  BEARER  moa-one"):
        with pytest.raises(Unauthenticated, match="Bearer was sent twice"):
            key_of([(header, value)])
        assert key_of([(header, value), ("x-goog-api-key", "moa-two")]) == "moa-two"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("authorization", "Token moa-one"),
        ("authorization", "token  moa-one "),
        ("x-api-key", "Bearer moa-one"),
        ("x-goog-api-key", "bearer moa-one"),
    ],
)
def test_a_key_behind_another_word(header: str, value: str) -> None:
    """Replicate's older clients write `Token`; many a script writes `Bearer` into every header."""
    assert key_of([(header, value)]) == "moa-one"
