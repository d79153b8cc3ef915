"""A batch at a provider: some of the requests of one caller's batch, for one model."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

UNDECIDED: Final = 0
"""Of a request: whether it is handed over is not decided."""
HANDED: Final = 7
"""Of a request: it is handed over."""

MAKING: Final = 1
"""Of a pack: it is being handed over; whether the provider has it is not known."""
THERE: Final = 2
"""Of a pack: it is at the provider."""

MOST_REQUESTS: Final = 200
"""Of one pack."""
MOST_BYTES: Final = 8 * 2**20
"""Of the bodies of one pack."""
TRIES: Final = 2
"""How often a request is handed over whose failure may pass."""
_FIRST_LOOK_S: Final = 2.0
_LONGEST_LOOK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as it is asked and answered."""

    batch_id: str
    place: int
    account_id: str
    key_id: str
    headers: Sequence[str]
    body: bytes

    @property
    def request_id(self) -> str:
        """The request's id in logs and answers."""
        return f"{self.batch_id}-{self.place}"

    @property
    def sent_headers(self) -> list[tuple[str, str]]:
        """What is sent beside the body."""
        return list(zip(self.headers[::2], self.headers[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Undecided:
    """A batch, some of whose requests are looked at."""

    batch_id: str
    key_id: str
    fence: int
    is_full: bool
    """Whether its account's batches hold as much as they may."""
    requests: Sequence[Asked]
    unreadable: Sequence[int]
    """Places of requests that no key opens."""


@dataclass(frozen=True, slots=True)
class Member:
    """A request of a pack that is being made."""

    asked: Asked
    handed: Any
    """How it is handed over: `moa.batch.v1.PrepareMessageResponse`."""
    reservation_id: str = ""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack."""

    id: str
    batch_id: str
    provider: str
    model: str
    requests: int
    quota_lease: str
    fence: int
    state: int = MAKING
    provider_batch_id: str | None = None
    cancel_sent: bool = False
    looks: int = 0
    created_at: datetime | None = None
    is_cancelled: bool = False
    """Whether its batch is."""
    is_late: bool = False
    """Whether its batch's time has been over for long."""

    def custom_id(self, place: int) -> str:
        """Return what one of its requests is called at the provider."""
        return f"{self.id}-{place}"

    @property
    def look_again_s(self) -> float:
        """After how long the provider is asked again whether it has ended."""
        return float(min(_LONGEST_LOOK_S, _FIRST_LOOK_S * 1.5 ** min(self.looks, 20)))


def new_id() -> str:
    """Return a new pack's id: letters and digits, as every provider takes them in names of requests."""
    return "mp" + secrets.token_hex(12)


def bounded(members: Sequence[Member]) -> list[list[Member]]:
    """Return requests in packs of bounded size."""
    packs: list[list[Member]] = [[]]
    size = 0
    for member in members:
        if packs[-1] and size + len(member.asked.body) > MOST_BYTES:
            packs.append([])
            size = 0
        packs[-1].append(member)
        size += len(member.asked.body)
    return packs
