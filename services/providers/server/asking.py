"""One question to a server among others, as a step of a list."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar

import msgspec
from yarl import URL

from services.common.errors import MoaError
from services.providers.http.client import Outgoing
from services.providers.listing import read

T = TypeVar("T")
R = TypeVar("R")

Asking = Generator[Outgoing, bytes, R]
_JSON: Final = {"Content-Type": "application/json"}


def get(url: str, shape: type[T], body: Any = None) -> Asking[T]:
    """Return what is at `url`, which is sent `body` where there is one. Raises MoaError."""
    if body is None:
        return read((yield Outgoing(URL(url), b"", {}, "GET")), shape)
    return read((yield Outgoing(URL(url), msgspec.json.encode(body), _JSON)), shape)


def asked(url: str, shape: type[T], body: Any = None) -> Asking[T | None]:
    """Return the same; None where that is not there, or has another shape."""
    try:
        return (yield from get(url, shape, body))
    except MoaError:
        return None


def words(facts: dict[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words of which a server says that they are so, and those of which it says that they are not."""
    return (
        frozenset(word for word, so in facts.items() if so is True),
        frozenset(word for word, so in facts.items() if so is False),
    )
