"""A cap on what a request may be: how large, how long its answer, in which languages.

A language is told by its script, so English and French are not told apart, and Korean and English are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.policies import Asked, Change, Hook, Refuse
from services.policies.matching import Pattern
from services.policies.texts import texts_of

_WRITTEN_IN: Final[Mapping[tuple[str, ...], str]] = {
    ("Latin",): "af ca cs da de en es et fi fr hr hu id is it lt lv ms nl no pl pt ro sk sl sv sw tr vi",
    ("Cyrillic",): "be bg kk mk mn ru sr uk",
    ("Arabic",): "ar fa ur",
    ("Devanagari",): "hi mr ne",
    ("Bengali",): "bn",
    ("Greek",): "el",
    ("Hebrew",): "he",
    ("Han", "Hiragana", "Katakana"): "ja",
    ("Hangul", "Han"): "ko",
    ("Tamil",): "ta",
    ("Telugu",): "te",
    ("Thai",): "th",
    ("Han", "Bopomofo"): "zh",
}
SCRIPTS: Final[Mapping[str, tuple[str, ...]]] = {
    code: scripts for scripts, codes in _WRITTEN_IN.items() for code in codes.split()
}
"""In which scripts a language is written, by its code of ISO 639-1."""
_GAP: Final = 40
"""Characters between two letters of other scripts, at most, for them to count together."""


class Settings(BaseModel):
    """What a row of this policy says. Unset is no cap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_characters: int | None = Field(default=None, ge=1)
    """Of all words of a request together."""
    most_messages: int | None = Field(default=None, ge=1)
    """Turns of a conversation, or texts to embed."""
    most_output_tokens: int | None = Field(default=None, ge=1, lt=2**32)
    """A request for a longer answer, or for one without a bound, is changed to this."""
    languages: tuple[str, ...] = ()
    """By their codes of ISO 639-1 (`en`, `ko`); empty: all."""
    foreign_letters: int = Field(default=8, ge=1, le=64)
    """So many letters of other scripts near each other are a text in another language; a name or a symbol is none."""

    @model_validator(mode="after")
    def _known(self) -> Settings:
        if unknown := [code for code in self.languages if code not in SCRIPTS]:
            raise ValueError(
                f"no script is known of language {', '.join(unknown)}; known are {', '.join(sorted(SCRIPTS))}"
            )
        return self


class Cap(Hook):
    """Refuses requests that are too large or in another language, and shortens the answers that are asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._foreign: Pattern | None = None
        if settings.languages:
            scripts = sorted({script for code in settings.languages for script in SCRIPTS[code]})
            known = "".join(rf"\p{{{script}}}" for script in (*scripts, "Common", "Inherited"))
            letter = rf"[\p{{L}}--[{known}]]"
            span = settings.foreign_letters * _GAP
            gap = f"(?s:.{{0,{_GAP - 1}}}?)"
            self._foreign = Pattern(letter + f"(?:{gap}{letter}){{{settings.foreign_letters - 1}}}", span=span)

    async def before(self, asked: Asked, request: Any) -> Change | Refuse | None:
        """Judge a request by its size, then by its language."""
        if (reason := self._too_large(request)) is not None:
            return Refuse(reason)
        if self._foreign is not None and await self._foreign.is_in_any(texts_of(request)):
            return Refuse(f"this gateway's operator allows these languages: {', '.join(self._settings.languages)}")
        most = self._settings.most_output_tokens
        if most is None or not isinstance(request, GenerateTextRequest):
            return None
        if request.HasField("max_tokens") and request.max_tokens <= most:
            return None
        changed = GenerateTextRequest()
        changed.CopyFrom(request)
        changed.max_tokens = most
        return Change(changed)

    def _too_large(self, request: Any) -> str | None:
        most = self._settings.most_messages
        if most is not None and (count := _count(request)) > most:
            return f"this gateway's operator allows at most {most} messages or texts in a request, not {count}"
        most = self._settings.most_characters
        if most is not None and (count := sum(map(len, texts_of(request)))) > most:
            return f"this gateway's operator allows at most {most} characters in a request, not {count}"
        return None


def _count(request: Any) -> int:
    if isinstance(request, GenerateTextRequest):
        return len(request.messages)
    return len(request.texts) + len(request.token_lists) if isinstance(request, EmbedTextsRequest) else 1


def made(settings: Mapping[str, Any]) -> Cap:
    """Return the policy of a row. Raises ValueError for bad settings."""
    return Cap(Settings.model_validate(settings))
