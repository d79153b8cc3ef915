"""A batch of messages, and what becomes of each of its requests."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WAITS: Final = 1
RUNS: Final = 2
SUCCEEDED: Final = 3
ERRORED: Final = 4
CANCELED: Final = 5
EXPIRED: Final = 6

LASTS: Final = timedelta(hours=24)
"""How long after its creation a batch's last request is begun, at most."""
MOST_REQUESTS: Final = 10_000
"""Of one batch."""
MOST_OPEN: Final = 100
"""Batches of one account that have not ended."""
MOST_BYTES: Final = 512 * 2**20
"""Of an account's requests and results together, as they are kept: beyond it no batch is created, and none goes on."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch."""

    id: str
    account_id: str
    created_at: datetime
    expires_at: datetime
    cancelled_at: datetime | None
    ended_at: datetime | None
    total: int
    succeeded: int
    errored: int
    canceled: int
    expired: int

    @property
    def processing(self) -> int:
        """How many of its requests have not ended."""
        return self.total - self.succeeded - self.errored - self.canceled - self.expired

    @property
    def status(self) -> str:
        """Where it is, as Anthropic's API says it."""
        if self.ended_at is not None:
            return "ended"
        return "canceling" if self.cancelled_at is not None else "in_progress"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A request of a batch, for the worker that answers it."""

    batch_id: str
    place: int
    fence: int
    tries: int
    account_id: str
    key_id: str
    headers: list[str]
    sealed: bool
    """Whether it is kept encrypted."""
    params: bytes
    """Its body, as it is kept."""
    is_full: bool
    """Whether its account's batches hold as much as they may."""

    @property
    def idempotency_key(self) -> str:
        """The same for every claim of one try, so that a try that was interrupted is charged once."""
        return f"{self.batch_id}-{self.place}-{self.tries}"

    @property
    def request_id(self) -> str:
        """The request's id in logs and answers."""
        return f"{self.batch_id}-{self.place}"

    @property
    def sent_headers(self) -> list[tuple[str, str]]:
        """What is sent beside the body."""
        return list(zip(self.headers[::2], self.headers[1::2], strict=True))


def new_id() -> str:
    """Return a new batch's id."""
    return "msgbatch_" + secrets.token_urlsafe(18).replace("-", "A").replace("_", "B")
