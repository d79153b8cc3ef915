from __future__ import annotations

from random import Random

import pytest

from inference.training.dialogues import dialogue, turn
from inference.training.dialogues.generator import KINDS
from inference.training.dialogues.korean import object_, topic, with_
from inference.training.dialogues.sums import worked


def test_a_seed_always_writes_the_same_dialogues() -> None:
    """Dialogues are functions of the seed alone."""
    first, second = Random(5), Random(5)
    assert [dialogue(first) for _ in range(50)] == [dialogue(second) for _ in range(50)]


def test_a_question_has_one_answer() -> None:
    """No two turns ask the same and answer differently: exactness can reach 1."""
    rng = Random(1)
    answers: dict[str, str] = {}
    for _ in range(20000):
        asked = turn(rng)
        assert answers.setdefault(asked.question, asked.answer) == asked.answer, asked.question


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_speaks_both_languages(kind: str) -> None:
    """Each kind of turn asks and answers in English and in Korean; a Korean answer follows a Korean question."""
    rng = Random(2)
    asked = [turn(rng, kind) for _ in range(120)]
    korean = [_hangul(t.question) for t in asked]
    assert any(korean)
    assert not all(korean)
    if kind not in ("word", "counting"):  # a word may be Hangul in either; counting answers in digits
        assert [_hangul(t.answer) for t in asked] == korean


@pytest.mark.parametrize(
    ("word", "forms"),
    [("산", ("산은", "산을", "산과")), ("바다", ("바다는", "바다를", "바다와")), ("7", ("7은", "7을", "7과"))],
)
def test_particles_follow_the_last_sound(word: str, forms: tuple[str, str, str]) -> None:
    """A closed syllable takes 은, 을 and 과, an open one 는, 를 and 와; digits as they are read."""
    assert (topic(word), object_(word), with_(word)) == forms


@pytest.mark.parametrize(("a", "b"), [(21, 22), (99, 99), (45, 55), (4, 20)])
def test_the_worked_sum_is_right(a: int, b: int) -> None:
    """Units, carry and tens of a worked sum put together are the sum."""
    units, tens = (int(part.split("= ")[1]) for part in worked(a, b).rstrip(".").split(". "))
    assert tens * 10 + units % 10 == a + b


def _hangul(text: str) -> bool:
    return any("가" <= letter <= "힣" or "ㄱ" <= letter <= "ㅣ" for letter in text)
