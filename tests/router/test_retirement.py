"""Retired models: what the catalogue admits, and who answers for them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from services.catalogue import CatalogueError, Retirement, load
from services.common.errors import ModelRetired, Unsupported
from services.router.domain.retirement import name_the_retired, standing

FILE = """
providers: [{id: p, adapter: openai, makes: image, base_url: "http://x"}]
models:
  - {id: a, provider: p, retirement: {date: 2026-05-12, announced: 2025-11-14, successor: b}}
  - {id: b, provider: p, retirement: {date: 2026-08-01, successor: p/c}}
  - {id: c, provider: p}
  - {id: d, provider: p, retirement: {date: 2026-05-12, successor: a, policy: gone}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(text)
    return path


CASES = [
    ("a", date(2025, 11, 13), "a", False),
    ("a", date(2025, 11, 14), "a", True),
    ("a", date(2026, 5, 11), "a", True),
    ("a", date(2026, 5, 12), "b", True),
    ("a", date(2026, 8, 1), "c", True),
    ("b", date(2026, 1, 1), "b", True),
    ("c", date(2030, 1, 1), "c", False),
    ("d", date(2026, 5, 11), "d", True),
]


@pytest.mark.parametrize(("asked", "on", "answers", "told"), CASES)
def test_who_answers_on_a_day(tmp_path: Path, asked: str, on: date, answers: str, told: bool) -> None:
    """Until its day a model answers itself, then its successor, then that one's; callers are told once announced."""
    catalogue = load(written(tmp_path, FILE), {})
    model, ending = standing(catalogue, catalogue.find(asked), on)
    assert (model.id, ending is not None) == (answers, told)


def test_a_model_that_is_gone_names_its_successor(tmp_path: Path) -> None:
    """The refusal says when it ended and what to use."""
    catalogue = load(written(tmp_path, FILE), {})
    with pytest.raises(ModelRetired, match="model d was retired on 2026-05-12; use a"):
        standing(catalogue, catalogue.find("d"), date(2026, 5, 12))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("successor: p/c", "successor: p/x"), "there is no 'p/x'"),
        (("p/c", "a"), "circle"),
        (("policy: gone", "policy: x"), "policy"),
    ],
)
def test_a_bad_line_of_successors_is_refused(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    """The catalogue is refused where a successor is missing, or the line of them never ends."""
    with pytest.raises(CatalogueError, match=why):
        load(written(tmp_path, FILE.replace(*change)), {})


def test_a_refusal_says_for_whom_the_successor_answers() -> None:
    """Who asked for a retired model and hears of another's limits is told why; before its end nothing is added."""
    ended = Retirement(date=date(2025, 3, 4), successor="b")
    refusal = Unsupported("no masks", param="mask")
    name_the_retired(refusal, "a", ended)
    assert refusal.message == "no masks; it answers for a, which was retired on 2025-03-04"
    assert refusal.param == "mask"
    for told in (None, Retirement(date=date(2999, 1, 1), successor="b")):
        name_the_retired(refused := Unsupported("no masks"), "a", told)
        assert refused.message == "no masks"
