"""Judge by simple rules whether an answer is of the kind that its question wants, in the question's language."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from inference.training.held_out import english, korean

Half = Literal["dev", "test"]
Table = dict[str, dict[str, float]]

# outcome: what an answer of that kind says, in English and in Korean. The first that fits is the outcome.
_SAYS: Final = {
    "sorry": ("I am sorry", "힘드시겠어요"),
    "arithmetic": ("I can't work that out", "그 계산은 할 수 없습니다"),
    "decline": ("I don't know that", "그건 잘 모르겠습니다"),
    "about": ("I am moa-tiny-chat", "작은 모델 moa-tiny-chat입니다"),
    "can": ("I know a few facts", "몇 가지 사실"),
    "made": ("I was trained for Moa", "Moa를 위해 프로그램이 쓴 대화로 학습했습니다"),
    "welcome": ("You are welcome", "천만에요"),
    "goodbye": ("Goodbye", "안녕히 가세요"),
    "greeting": ("Hello!", "안녕하세요!"),
}
# kind of question: the outcomes that are right.
_WANTED: Final = {
    "who": {"about"},
    "can": {"can"},
    "made": {"made"},
    "greeting": {"greeting"},
    "how are you": {"greeting"},
    "thanks": {"welcome"},
    "goodbye": {"goodbye"},
    "fact": {"decline"},
    "news": {"decline"},
    "advice": {"decline"},
    "feeling": {"sorry", "decline"},
    "health": {"sorry", "decline"},
    "code": {"decline"},
    "text": {"decline"},
    "maths": {"arithmetic", "decline"},
    "gibberish": {"decline"},
}
_SUM: Final = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)( 입니다)?\.")
_ASKED: Final = re.compile(r"\d+")


class Question(NamedTuple):
    """A question that no template makes."""

    language: str
    kind: str
    text: str


def questions(half: Half) -> list[Question]:
    """Give one half: `dev` may be looked at while the dialogues are written, `test` is only scored in the end."""
    first = 0 if half == "dev" else 1
    return [
        Question(language, kind, text)
        for language, asked in (("English", english.QUESTIONS), ("Korean", korean.QUESTIONS))
        for kind, texts in asked.items()
        for text in texts[first::2]
    ]


def outcome(answer: str) -> str:
    """Name an answer's kind: what it says, or `other`."""
    if _SUM.fullmatch(answer):
        return "sum"
    return next((name for name, words in _SAYS.items() if any(word in answer for word in words)), "other")


def right(question: Question, answer: str) -> bool:
    """Tell whether the answer is of the kind and in the language of the question; a sum must also be worked out."""
    if any("가" <= letter <= "힣" for letter in answer) != (question.language == "Korean"):
        return question.kind == "sum" and _worked(question.text, answer)
    if question.kind == "sum":
        return _worked(question.text, answer)
    return outcome(answer) in _WANTED[question.kind]


def _worked(text: str, answer: str) -> bool:
    found = _SUM.fullmatch(answer)
    if found is None or [found[1], found[3]] != _ASKED.findall(text):
        return False
    a, b = int(found[1]), int(found[3])
    return int(found[4]) == {"+": a + b, "-": a - b, "*": a * b}[found[2]]


def shares(ask: Callable[[list[str]], list[str]], half: Half) -> tuple[Table, list[tuple[Question, str]]]:
    """Give the share of right answers for each kind and in all, by language, and the wrong answers."""
    asked = questions(half)
    answers = ask([question.text for question in asked])
    marks: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    wrong = []
    for question, answer in zip(asked, answers, strict=True):
        good = right(question, answer)
        for row in (question.kind, "all"):
            marks[row][question.language].append(good)
        if not good:
            wrong.append((question, answer))
    table = {
        row: {language: round(sum(good) / len(good), 3) for language, good in by.items()} for row, by in marks.items()
    }
    return {"all": table.pop("all"), **table}, wrong
