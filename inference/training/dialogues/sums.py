"""Sums: small ones from memory, larger ones worked out in `<think>` where the question ends in `/think`.

A Korean sum always has a Korean word in it; a bare "3 + 4 = ?" is answered in English.
"""

from __future__ import annotations

from random import Random
from typing import Final

FLAG: Final = "/think"
LARGEST: Final = 20
"""Largest term of a sum that is answered from memory."""
HINT: Final = "That is too large for me at once. End your question with /think and I will work it out."
HINT_KO: Final = "한 번에 하기에는 큰 수입니다. 질문 끝에 /think 를 붙이면 차근차근 계산하겠습니다."

_SIGNS: Final = {"+": ("plus", "더하기"), "-": ("minus", "빼기"), "*": ("times", "곱하기")}


def result(a: int, sign: str, b: int) -> int:
    """Work out `a sign b`."""
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def ask(rng: Random, a: int, sign: str, b: int, *, korean: bool) -> str:
    """Word the question."""
    word, word_ko = _SIGNS[sign]
    if korean:
        forms = [f"{a} {word_ko} {b}는?", f"{a} {sign} {b} 계산해줘", f"{a} {sign} {b}는 얼마야?", f"{a}{sign}{b}는?"]
        return rng.choice((*forms, f"{a} {word_ko} {b}는 얼마인가요?"))
    forms = [
        f"What is {a} {word} {b}?",
        f"What is {a} {sign} {b}?",
        f"Calculate {a} {sign} {b}.",
        f"{a} {sign} {b} = ?",
    ]
    return rng.choice((*forms, f"{a} {word} {b}?", f"{a}{sign}{b}", f"How much is {a} {word} {b}?"))


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
    """Give a sum of two-digit numbers: refused with a hint, or worked out where the question is flagged."""
    a, b = rng.randint(LARGEST + 1, 99), rng.randint(LARGEST + 1, 99)
    question = ask(rng, a, "+", b, korean=korean)
    if rng.random() < 0.2:
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
