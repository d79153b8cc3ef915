"""Who asks."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from services.common.rpc.keys import key_of

__all__ = ["Caller", "key_of"]


def unheard() -> None:
    """Do nothing about a sign of life."""


class Caller(msgspec.Struct, frozen=True):
    """A caller as the wire shows it; its key is not verified yet."""

    key: str
    """The API key; empty when none was sent."""
    request_id: str
    """The request's id."""
    began: float = 0.0
    """When it arrived, by `time.perf_counter`."""
    own_key: str = ""
    """The caller's own key of a provider; `key` is then what stands for it here."""
    until: float = math.inf
    """When it gives up, by `time.monotonic`."""
    fallback: bool = True
    """Whether another model may answer when the one that it asks for cannot."""
    has_others: bool = False
    """Whether its request is for a virtual model of which more than one target may answer."""
    tags: frozenset[str] = frozenset()
    """What it calls its request, for the conditions of virtual models and reports of spending."""
    dialect: str = ""
    """The dialect that it speaks, by its name; `grpc` for the gRPC API."""
    max_wait_s: float = 0.0
    """How long its request may wait for a provider that is at its limit, before it is refused."""
    is_durable: bool = False
    """Whether its request is made again should this process vanish, so that its end alone is booked."""
    heard: Callable[[], None] = unheard
    """Told whenever whoever is asked shows, before the answer begins, that it works."""

    def __repr__(self) -> str:  # neither of the keys
        return f"Caller(request_id={self.request_id!r}, dialect={self.dialect!r})"
