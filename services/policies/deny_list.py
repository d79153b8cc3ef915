"""A deny-list: requests that hold one of its patterns are refused, answers are stopped before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.policies import Asked, Hook, Refuse, Stop, Watch
from services.policies.matching import Pattern
from services.policies.texts import shortened, text_of, texts_of


class Settings(BaseModel):
    """What a row of this policy says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...] = Field(min_length=1, max_length=1000)
    """As Rust's `regex` writes them; `(?i)` before one passes over case."""
    span: int = Field(default=128, ge=1, le=4096)
    """Characters that a match spans at most; so many of a streamed answer are held back."""
    look_at: tuple[Literal["requests", "answers"], ...] = ("requests", "answers")
    """What is looked through."""
    message: str = Field(default="this request holds what this gateway's operator does not allow", min_length=1)
    """What the caller is told."""


class DenyList(Hook):
    """Refuses requests, and stops answers, that hold one of its patterns."""

    def __init__(self, settings: Settings) -> None:
        self.holds = settings.span
        self._message = settings.message
        for pattern in settings.patterns:
            # Each by itself, so that a bad one is named.
            if Pattern(pattern, span=settings.span).is_in(""):
                raise ValueError(f"pattern {pattern!r} matches the empty text: every request would be refused")
        self._pattern = Pattern("|".join(f"(?:{pattern})" for pattern in settings.patterns), span=settings.span)
        self._requests = "requests" in settings.look_at
        self._watch = _Watch(self._pattern, settings.message) if "answers" in settings.look_at else None

    async def before(self, asked: Asked, request: Any) -> Refuse | None:
        """Refuse a request in whose words a pattern is."""
        if self._requests and await self._pattern.is_in_any(texts_of(request)):
            return Refuse(self._message)
        return None

    def watch(self, asked: Asked, request: Any) -> Watch | None:
        """Return what stops an answer before a pattern."""
        return self._watch


class _Watch(Watch):
    """Remembers nothing: one is enough for all answers."""

    def __init__(self, pattern: Pattern, reason: str) -> None:
        self._pattern = pattern
        self._reason = reason

    async def after(self, event: Any) -> Stop | None:
        text = text_of(event)
        if not await self._pattern.is_in_any((text,)):
            return None
        front = shortened(event, await self._pattern.clear_of(text))
        return Stop(self._reason, () if front is None else (front,))


def made(settings: Mapping[str, Any]) -> DenyList:
    """Return the policy of a row. Raises ValueError for bad settings."""
    return DenyList(Settings.model_validate(settings))
