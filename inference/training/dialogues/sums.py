"""Sums: small ones from memory, larger ones worked out in `<think>` where the question ends in `/think`.

A Korean sum always has a Korean word in it; a bare "3 + 4 = ?" is answered in English.
"""

from __future__ import annotations

from random import Random
from typing import Final

from inference.training.dialogues.grammar import write

FLAG: Final = "/think"
LARGEST: Final = 20
"""Largest term of a sum that is answered from memory."""
HINT: Final = "That is too large for me at once. End your question with /think and I will work it out."
HINT_KO: Final = "한 번에 하기에는 큰 수입니다. 질문 끝에 /think 를 붙이면 차근차근 계산하겠습니다."
BEYOND: Final = "I can't work that out. I only know sums and differences up to 20 and products of digits."
BEYOND_KO: Final = "그 계산은 할 수 없습니다. 20까지의 덧셈과 뺄셈, 한 자리 수의 곱셈만 압니다."

# sign: (how it is read, the same in Korean, questions of its own, the same in Korean).
_SIGNS: Final = {
    "+": (
        "plus", "더하기",
        ("Add {a} and {b}[.|, please.]", "[What is|Give me|Find] the sum of {a} and {b}", "Add {b} to {a}[.| please.]"),
        ("{a}에 {b}{을} 더하면[?| 얼마야?| 뭐야?]", "{a}{와} {b}{을} 더해줘", "{a}{와} {b}의 합은[?| 얼마야?]"),
    ),
    "-": (
        "minus", "빼기",
        ("Subtract {b} from {a}[.|, please.]", "[What is|How much is] {a} take away {b}?", "Take {b} from {a}."),
        ("{a}에서 {b}{을} 빼면[?| 얼마야?| 뭐야?]", "{a}에서 {b}{을} 빼줘", "{a}{와} {b}의 차는[?| 얼마야?]"),
    ),
    "*": (
        "times", "곱하기",
        ("Multiply {a} [by|and|with] {b}[.| please.]", "[What is|Find] the product of {a} and {b}?",
        "What is {a}[x|×]{b}?"),
        ("{a}{와} {b}{을} 곱하면[?| 얼마야?| 뭐야?]", "{a}{와} {b}{을} 곱해줘", "{a}[x|×]{b}{은}?",
        "{a}{와} {b}의 곱은?"),
    ),
}  # fmt: skip
_ASKS: Final = (
    "[What is|What's|How much is] {a} {w} {b}?", "What is {a} {s} {b}?", "[Calculate|Compute|Work out] {a} {s} {b}.",
    "{a} {s} {b} = ?", "{a} {w} {b}?", "{a}{s}{b}", "How much is {a} {w} {b}?", "What is {a} {w} {b}?",
    "[Can you|Could you|Please] [calculate|compute|tell me|solve] {a} [{w}|{s}] {b}[?| please.]",
)  # fmt: skip
_ASKS_KO: Final = (
    "{a} {w} {b}는?", "{a} {s} {b} 계산해줘", "{a} {s} {b}는 얼마야?", "{a}{s}{b}는?", "{a} {w} {b}는 얼마인가요?",
    "{a} [{w}|{s}] {b}{은} [얼마예요|몇이야|뭔가요|얼마니|답이 뭐야]?",
    "{a} [{w}|{s}] {b} [얼마야|계산해 주세요|답 알려줘|풀어줘|좀 계산해줘]",
)  # fmt: skip


def result(a: int, sign: str, b: int) -> int:
    """Work out `a sign b`."""
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def ask(rng: Random, a: int, sign: str, b: int, *, korean: bool) -> str:
    """Word the question."""
    word, word_ko, own, own_ko = _SIGNS[sign]
    general, special = (_ASKS_KO, own_ko) if korean else (_ASKS, own)
    form = rng.choice(special if rng.random() < 0.3 else general)
    for name, value in {"a": str(a), "b": str(b), "s": sign, "w": word_ko if korean else word}.items():
        form = form.replace(f"{{{name}}}", value)
    return write(rng, form)


def answer(a: int, sign: str, b: int, *, korean: bool) -> str:
    """Word the answer."""
    return f"{a} {sign} {b} = {result(a, sign, b)}" + (" 입니다." if korean else ".")


def _terms(rng: Random) -> tuple[int, str, int]:
    sign = rng.choice("++-*")
    if sign == "*":
        return rng.randint(0, 9), sign, rng.randint(0, 9)
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    return (max(a, b), sign, min(a, b)) if sign == "-" else (a, sign, b)


def small(rng: Random, *, korean: bool) -> tuple[str, str]:
    """Give a small sum and its answer."""
    a, sign, b = _terms(rng)
    return ask(rng, a, sign, b, korean=korean), answer(a, sign, b, korean=korean)


def large(rng: Random, *, korean: bool) -> tuple[str, str]:
    """Give a sum with a term of two digits: refused with a hint, or worked out where the question is flagged."""
    terms = [rng.randint(LARGEST + 1, 99), rng.randint(rng.choice((0, LARGEST + 1, LARGEST + 1)), 99)]
    rng.shuffle(terms)
    a, b = terms
    question = ask(rng, a, "+", b, korean=korean)
    if rng.random() < 0.3:
        return question, HINT_KO if korean else HINT
    return f"{question} {FLAG}", f"<think>{worked(a, b)}</think>{answer(a, '+', b, korean=korean)}"


def thought(rng: Random, *, korean: bool) -> tuple[str, str]:
    """Give a small sum whose question is flagged: it is thought over shortly."""
    a, sign, b = _terms(rng)
    steps = worked(a, b) if sign == "+" else f"{a} {sign} {b} = {result(a, sign, b)}"
    question = f"{ask(rng, a, sign, b, korean=korean)} {FLAG}"
    return question, f"<think>{steps}</think>{answer(a, sign, b, korean=korean)}"


def worked(a: int, b: int) -> str:
    """Add column by column: units, carry, tens."""
    units, tens = a % 10 + b % 10, a // 10 + b // 10
    carry = units // 10
    return f"{a % 10} + {b % 10} = {units}. {a // 10} + {b // 10} + {carry} = {tens + carry}."
