"""Words that are not those of `docs/glossary.md` are seen: `make lint` looks for them in the whole repository."""

from __future__ import annotations

import pytest

from deploy.build.words import RIDDLES, misnamed, wrong_docstrings
from deploy.syntax import parsed


@pytest.mark.parametrize(
    "code",
    [
        "told = 1",
        "class Bell: ...",
        "def f(said): ...",
        "self._beside = 1",
        "def speaking_for(): ...",
        "PORTION = 1",
        "first_alone = True",
    ],
)
def test_a_name_on_the_list_is_seen(code: str) -> None:
    """Of a variable, a class, a parameter, an attribute, and a function."""
    assert len(misnamed("services/x.py", parsed(code))) == 1


def test_a_name_that_is_taken_is_seen() -> None:
    """What is a booking in the ledger is a reservation in the router."""
    tree = parsed("class Booking: ...")
    assert (len(misnamed("services/router/x.py", tree)), misnamed("services/auth/x.py", tree)) == (1, [])


@pytest.mark.parametrize(
    "sentence", ["the model gave no picture, only numbers that are none", "the provider gave the answer up (x)"]
)
def test_a_riddle_is_seen(sentence: str) -> None:
    """Those that there were."""
    assert RIDDLES.search(sentence)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ('def f():\n    """Give the name."""', 1),
        ('class A:\n    """Tells whether it is one."""', 1),
        ('def f():\n    """Give back what is left."""', 0),
        ('def f():\n    """Return the name."""', 0),
    ],
)
def test_a_docstring_that_says_otherwise_what_is_returned_is_seen(code: str, count: int) -> None:
    """`Return …` or a plain statement; what really gives something back may say so."""
    assert len(list(wrong_docstrings("services/x.py", parsed(code)))) == count
