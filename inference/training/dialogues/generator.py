"""Draw turns and whole dialogues from everything that moa-tiny-chat should know."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, Literal, NamedTuple, TypedDict

from inference.training.dialogues import about, beyond, known, sums, unknown
from inference.training.dialogues.grammar import write


class Turn(NamedTuple):
    """One question and the one answer to it."""

    kind: str
    question: str
    answer: str


class Message(TypedDict):
    """One message of a dialogue, as chat templates take it."""

    role: Literal["system", "user", "assistant"]
    content: str


SYSTEM: Final = (
    "You are a helpful assistant.", "당신은 도움이 되는 조수입니다.", "You are the gateway assistant.",
    "Answer shortly.",
    "You are a friendly assistant.", "짧게 대답하세요.", "Be concise.", "친절하게 대답하세요.",
)  # fmt: skip
# Before what is asked: some words, or a sentence of its own.
_BEFORE: Final = (
    "Please ",
    "Can you tell me: ",
    "Hey, ",
    "Ok, ",
    "I have a question. ",
    "Hello! ",
    "Hi, ",
    "Hi! ",
    "Good morning. ",
    "Hello, ",
    "Hi there, ",
    "Good evening, ",
    "Just one question: ",
    "Sorry, ",
    "Excuse me, ",
    "I just got here. ",
    "So, ",
    "Dear bot, ",
    "I want to ask something. ",
    "This is my first time here. ",
    "Thanks. Now, ",
    "Quick question. ",
)
_BEFORE_KO: Final = (
    "저기, ",
    "질문이 있어. ",
    "그럼 ",
    "혹시 ",
    "안녕하세요, ",
    "안녕! ",
    "안녕하세요. ",
    "안녕하세요! ",
    "하이, ",
    "반가워요. ",
    "처음 왔는데요, ",
    "하나만 물어볼게요. ",
    "궁금한 게 있어요. ",
    "실례합니다. ",
    "저 ",
    "있잖아, ",
    "좋은 아침이에요. ",
    "음, ",
    "근데 ",
    "만나서 반가워. ",
    "고마워요. 그런데 ",
    "오늘 처음 써봐요. ",
)
_AFTER: Final = (" Thanks!", " please", " Thank you.", "!", "!!", "??", "...", " :)", " Tell me.", " I am curious.")
_AFTER_KO: Final = ("~", "!", "!!", "??", "ㅋㅋ", "ㅎㅎ", "...", " 궁금해요.", " 부탁해요", "^^", "~?")


def _of(*topics: about.Topic) -> Callable[[Random, bool], tuple[str, str]]:
    def draw(rng: Random, korean: bool) -> tuple[str, str]:
        topic = rng.choice(topics)
        question = write(rng, rng.choice(topic.korean if korean else topic.english))
        return question, topic.answer_ko if korean else topic.answer

    return draw


def _unknown(rng: Random, korean: bool) -> tuple[str, str]:
    return unknown.unknown_ko(rng) if korean else unknown.unknown(rng)


def _named(draw: Callable[..., tuple[str, str]]) -> Callable[[Random, bool], tuple[str, str]]:
    return lambda rng, korean: draw(rng, korean=korean)


# kind: (share, how it is drawn). Shares follow how hard a kind is to learn, measured by its exactness.
KINDS: Final[dict[str, tuple[float, Callable[[Random, bool], tuple[str, str]]]]] = {
    "capital": (2, _named(known.capital)),
    "colour": (1, _named(known.colour)),
    "word": (1, _named(known.word)),
    "list": (1, _named(known.listing)),
    "day": (1, _named(known.day)),
    "story": (1, _named(known.story)),
    "larger": (3, _named(known.larger)),
    "prompt": (0.5, _named(known.prompt)),
    "counting": (1, _named(known.counting)),
    "name": (0.7, _named(known.name)),
    "sum": (5, _named(sums.small)),
    "large sum": (2, _named(sums.large)),
    "thought sum": (0.7, _named(sums.thought)),
    "beyond": (4, _named(beyond.beyond)),
    "who": (3, _of(about.WHO)),
    "can": (3.5, _of(about.CAN)),
    "made": (2.5, _of(about.MADE)),
    "about": (2.5, _of(*about.TOPICS)),
    "small talk": (4.5, _of(*about.SMALL_TALK)),
    "trouble": (3, _of(about.TROUBLES)),
    "unknown": (9, _unknown),
}
_SHARES: Final = [share for share, _ in KINDS.values()]
_FIXED: Final = frozenset({"large sum", "thought sum", "beyond"})
"""Kinds whose questions may end in a flag, after which nothing may be written."""
_OPEN: Final = frozenset({"who", "can", "made", "trouble", "unknown"})
"""Kinds whose questions mean the same with a letter wrong, or after other words."""


def turn(rng: Random, kind: str | None = None) -> Turn:
    """Give a question and its answer, of the kind or of any kind."""
    kind = kind or rng.choices(list(KINDS), _SHARES)[0]
    korean = rng.random() < 0.48
    question, answer = KINDS[kind][1](rng, korean)
    if kind not in _FIXED:
        if kind != "small talk" and rng.random() < (0.25 if kind in _OPEN else 0.12):
            question = _preceded(rng, question, korean=korean)
        question = _varied(rng, question, korean=korean)
        if kind in _OPEN and len(question) > 5:
            question = _careless(rng, question, korean=korean)
    return Turn(kind, question, answer)


def _preceded(rng: Random, question: str, *, korean: bool) -> str:
    """Write a few words before the question."""
    before = rng.choice(_BEFORE_KO if korean else _BEFORE)
    lower = not korean and before[-2] not in ".!" and not question.startswith("I ")
    return before + (question[0].lower() + question[1:] if lower else question)


def _varied(rng: Random, question: str, *, korean: bool) -> str:
    """Write a question as people do: without its mark, without capitals."""
    draw = rng.random()
    if draw < 0.12:
        return question.lower()
    if draw < 0.26:
        return question.rstrip("?.!") or question
    return question + "?" if korean and draw < 0.3 and question[-1] not in "?.!" else question


def _careless(rng: Random, question: str, *, korean: bool) -> str:
    """Write a question hastily: words after it, Korean without spaces, English with a letter lost or two swapped."""
    if rng.random() < 0.1:
        question = question.rstrip("?.!") + rng.choice(_AFTER_KO if korean else _AFTER)
    if rng.random() < 0.08:
        if korean:
            return question.replace(" ", "")
        at = rng.randrange(max(1, len(question) - 1))
        if question[at : at + 2].isalpha():
            return (
                question[:at]
                + rng.choice((question[at + 1 : at + 2], question[at : at + 2][::-1]))
                + question[at + 2 :]
            )
    return question


def dialogue(rng: Random) -> list[Message]:
    """Give a dialogue of one to three turns, some under a system message."""
    messages: list[Message] = []
    if rng.random() < 0.35:
        messages.append({"role": "system", "content": rng.choice(SYSTEM)})
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        asked = turn(rng)
        messages.append({"role": "user", "content": asked.question})
        messages.append({"role": "assistant", "content": asked.answer})
    return messages
