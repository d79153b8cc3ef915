"""The judge of held-out questions, and that they are held out."""

from __future__ import annotations

import re
from random import Random

import pytest

from inference.training.dialogues import turn
from inference.training.dialogues.about import CAN, MADE, TROUBLES, WHO
from inference.training.dialogues.sums import BEYOND, BEYOND_KO, HINT
from inference.training.dialogues.unknown import ANSWER, ANSWER_KO
from inference.training.held_out import Question, questions, right, shares


def test_each_half_asks_both_languages_alike() -> None:
    """There are at least eighty questions in each language, of the same kinds; the halves share none."""
    dev, test = questions("dev"), questions("test")
    kinds = {
        language: sorted(q.kind for q in (*dev, *test) if q.language == language) for language in ("English", "Korean")
    }
    assert kinds["English"] == kinds["Korean"]
    assert len(kinds["English"]) >= 80
    assert len({_plain(q.text) for q in (*dev, *test)}) == len(dev) + len(test)


def test_no_template_makes_a_held_out_question() -> None:
    """Among forty thousand turns none is a held-out question, whatever its marks and capitals."""
    rng = Random(11)
    held_out = {_plain(q.text) for half in ("dev", "test") for q in questions(half)}
    assert not held_out & {_plain(turn(rng).question) for _ in range(40000)}


@pytest.mark.parametrize(
    ("language", "kind", "text", "answer", "good"),
    [
        ("English", "who", "hm?", WHO.answer, True),
        ("English", "who", "hm?", ANSWER, False),  # it names the model too
        ("English", "who", "hm?", WHO.answer_ko, False),
        ("Korean", "who", "hm?", WHO.answer_ko, True),
        ("Korean", "can", "hm?", CAN.answer_ko, True),
        ("Korean", "made", "hm?", MADE.answer_ko, True),
        ("English", "feeling", "hm?", TROUBLES.answer, True),
        ("Korean", "health", "hm?", TROUBLES.answer_ko, True),
        ("Korean", "health", "hm?", WHO.answer_ko, False),
        ("English", "fact", "hm?", ANSWER, True),
        ("English", "fact", "hm?", "Hello! How can I help you today?", False),
        ("Korean", "news", "hm?", ANSWER_KO, True),
        ("English", "maths", "12 * 13", BEYOND, True),
        ("Korean", "maths", "12 * 13", BEYOND_KO, True),
        ("English", "maths", "12 * 13", "12 * 13 = 156.", False),  # it cannot know that: luck is no answer
        ("English", "maths", "36 * 25", HINT, False),
        ("English", "sum", "6 and 7?", "6 + 7 = 13.", True),
        ("English", "sum", "6 and 7?", "6 + 7 = 14.", False),
        ("English", "sum", "6 and 7?", "6 + 1 = 7.", False),
        ("Korean", "sum", "6 과 7?", "6 + 7 = 13 입니다.", True),
        ("English", "gibberish", "hm?", "", False),
    ],
)
def test_the_judge_reads_the_kind_of_an_answer(language: str, kind: str, text: str, answer: str, good: bool) -> None:
    """An answer is right if it is of a kind that its question wants, in its language, and a sum if it is worked out."""
    assert right(Question(language, kind, text), answer) is good


def test_shares_count_by_language_and_kind() -> None:
    """Whoever declines everything is right on what cannot be known, and on nothing else."""
    table, wrong = shares(lambda asked: [ANSWER if text.isascii() else ANSWER_KO for text in asked], "dev")
    assert next(iter(table)) == "all"
    assert table["fact"] == {"English": 1.0, "Korean": 1.0}
    assert table["who"] == {"English": 0.0, "Korean": 0.0}
    assert {question.kind for question, _ in wrong} >= {"who", "can", "made", "greeting", "sum"}


def _plain(text: str) -> str:
    return re.sub(r"[\s?!.,~]+", " ", text.lower()).strip() or text
