"""Draw turns and whole dialogues from everything that moa-tiny-chat should know."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, Literal, NamedTuple, TypedDict

from inference.training.dialogues import about, known, sums, unknown


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
_POLITE: Final = ("Please ", "Can you tell me: ", "Hey, ", "Ok, ", "I have a question. ")
_POLITE_KO: Final = ("저기, ", "질문이 있어. ", "그럼 ", "혹시 ")


def _of(topic: about.Topic) -> Callable[[Random, bool], tuple[str, str]]:
    def draw(rng: Random, korean: bool) -> tuple[str, str]:
        return (rng.choice(topic.korean), topic.answer_ko) if korean else (rng.choice(topic.english), topic.answer)

    return draw


def _any_topic(rng: Random, korean: bool) -> tuple[str, str]:
    return _of(rng.choice(about.TOPICS))(rng, korean)


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
    "larger": (1.5, _named(known.larger)),
    "prompt": (0.5, _named(known.prompt)),
    "counting": (1, _named(known.counting)),
    "name": (0.7, _named(known.name)),
    "sum": (5, _named(sums.small)),
    "large sum": (1.5, _named(sums.large)),
    "thought sum": (0.7, _named(sums.thought)),
    "who": (1.2, _of(about.WHO)),
    "can": (1.2, _of(about.CAN)),
    "about": (3, _any_topic),
    "unknown": (4.5, _unknown),
}
_SHARES: Final = [share for share, _ in KINDS.values()]
_FIXED_WORDING: Final = frozenset({"large sum", "thought sum"})


def turn(rng: Random, kind: str | None = None) -> Turn:
    """Give a question and its answer, of the kind or of any kind."""
    kind = kind or rng.choices(list(KINDS), _SHARES)[0]
    korean = rng.random() < 0.45
    question, answer = KINDS[kind][1](rng, korean)
    return Turn(kind, question if kind in _FIXED_WORDING else _varied(rng, question, korean=korean), answer)


def _varied(rng: Random, question: str, *, korean: bool) -> str:
    """Write a question as people do: with a few words before it, without its mark, without capitals."""
    if rng.random() < 0.12:
        polite = rng.choice(_POLITE_KO if korean else _POLITE)
        question = polite + (question if korean else question[0].lower() + question[1:])
    draw = rng.random()
    if draw < 0.12:
        return question.lower()
    if draw < 0.26:
        return question.rstrip("?.!") or question
    return question + "?" if korean and draw < 0.3 and question[-1] not in "?.!" else question


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
