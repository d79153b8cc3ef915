from __future__ import annotations

import re
from random import Random

import pytest

from inference.training.dialogues import dialogue, sums, turn
from inference.training.dialogues.generator import KINDS
from inference.training.dialogues.grammar import write
from inference.training.dialogues.korean import object_, topic, towards, with_
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
    [
        ("산", ("산은", "산을", "산과", "산으로")),
        ("바다", ("바다는", "바다를", "바다와", "바다로")),
        ("별", ("별은", "별을", "별과", "별로")),
        ("7", ("7은", "7을", "7과", "7로")),
        ("13", ("13은", "13을", "13과", "13으로")),
    ],
)
def test_particles_follow_the_last_sound(word: str, forms: tuple[str, str, str, str]) -> None:
    """A closed syllable takes 은, 을, 과 and 으로, an open one 는, 를, 와 and 로, as ㄹ does; digits as they sound."""
    assert (topic(word), object_(word), with_(word), towards(word)) == forms


def test_a_pattern_is_written_in_all_its_ways() -> None:
    """A choice is made in every bracket, also in nested ones, and particles fit what was chosen."""
    rng = Random(3)
    written = {write(rng, "[[Hi|Hey] you|Hello][!|] [물|차]{을}") for _ in range(400)}
    assert written == {f"{hello}{mark} {drink}" for hello in ("Hi you", "Hey you", "Hello") for mark in ("!", "")
                       for drink in ("물을", "차를")}  # fmt: skip


def test_arithmetic_is_answered_within_its_bounds() -> None:
    """Two terms are worked out, hinted at or refused: never more than one of them, whatever the wording."""
    rng = Random(4)
    answers: dict[tuple[str, ...], set[str]] = {}
    for kind in ("sum", "large sum", "beyond") * 6000:
        asked = turn(rng, kind)
        found = re.fullmatch(r"(\d+) ?([-+*]) ?(\d+)(?: = \?|는\?|는 얼마야\?)?", asked.question)
        if found:
            said = asked.answer if asked.answer in (sums.HINT, sums.HINT_KO, sums.BEYOND, sums.BEYOND_KO) else "result"
            answers.setdefault(found.groups(), set()).add(
                {sums.HINT_KO: sums.HINT, sums.BEYOND_KO: sums.BEYOND}.get(said, said)
            )
    assert len(answers) > 500
    assert [terms for terms, said in answers.items() if len(said) > 1] == []


@pytest.mark.parametrize(("a", "b"), [(21, 22), (99, 99), (45, 55), (4, 20)])
def test_the_worked_sum_is_right(a: int, b: int) -> None:
    """Units, carry and tens of a worked sum put together are the sum."""
    units, tens = (int(part.split("= ")[1]) for part in worked(a, b).rstrip(".").split(". "))
    assert tens * 10 + units % 10 == a + b


def _hangul(text: str) -> bool:
    return any("가" <= letter <= "힣" or "ㄱ" <= letter <= "ㅣ" for letter in text)
