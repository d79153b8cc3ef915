"""Korean particles, chosen by how the word before them ends."""

from __future__ import annotations

_FIRST, _LAST = "가", "힣"
_PER_VOWEL = 28  # a Hangul syllable block has 27 final consonants or none (Unicode ch. 3.12)
# How the digits 0-9 are read ends in a consonant or not: 영 일 이 삼 사 오 육 칠 팔 구.
_RIEUL = 8
_DIGIT_RIEUL = "178"
_DIGIT_CLOSED = (True, True, False, True, False, False, True, True, True, False)


def closed(word: str) -> bool:
    """Tell whether the last syllable ends in a consonant; words in other scripts count as open."""
    last = word[-1]
    if last.isascii() and last.isdigit():
        return _DIGIT_CLOSED[int(last)]
    return _FIRST <= last <= _LAST and (ord(last) - ord(_FIRST)) % _PER_VOWEL != 0


def topic(word: str) -> str:
    """Give the word with 은 or 는."""
    return word + ("은" if closed(word) else "는")


def object_(word: str) -> str:
    """Give the word with 을 or 를."""
    return word + ("을" if closed(word) else "를")


def subject(word: str) -> str:
    """Give the word with 이 or 가."""
    return word + ("이" if closed(word) else "가")


def with_(word: str) -> str:
    """Give the word with 과 or 와."""
    return word + ("과" if closed(word) else "와")


def towards(word: str) -> str:
    """Give the word with 으로, or with 로 after a vowel or ㄹ."""
    rieul = (ord(word[-1]) - ord(_FIRST)) % _PER_VOWEL == _RIEUL if word[-1] > _FIRST else word[-1] in _DIGIT_RIEUL
    return word + ("으로" if closed(word) and not rieul else "로")
