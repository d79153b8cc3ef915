"""Accounts and keys as they are stored, for those who look after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from services.auth.domain.accounts import KeyLimits, Limits, PacedLimits
from services.quota_client.amounts import Amount


@dataclass(frozen=True, kw_only=True)
class AccountRecord(Limits):
    """An account."""

    id: str
    email: str | None
    name: str
    role: str
    disabled_at: datetime | None
    unlimited: bool
    zone: str
    """Of its days now."""
    next_zone: str | None
    """Of its days from `next_zone_at` on, where it changes."""
    next_zone_at: datetime | None
    priority: str
    micro_credits: int
    created_at: datetime
    team_id: str | None
    team_role: str | None
    deleted_at: datetime | None
    stores_responses: bool | None = None
    """What it wants; None: what the operator's setting says."""
    limits_before: Mapping[str, int | None] = field(default_factory=dict)
    """What limits were before owners of its team changed them, by column."""


@dataclass(frozen=True, kw_only=True)
class TeamRecord(PacedLimits):
    """A team."""

    id: str
    name: str
    account_id: str
    """By which its own keys act."""
    rules: list[dict[str, Any]]
    created_at: datetime
    key_count: int
    """How many keys of its own it may have."""
    warn_url: str
    warn_emails: list[str]
    log_requests: bool
    """Whether its requests are logged."""
    log_content: bool
    """Whether prompts and answers are, too."""
    log_days: int
    """For how many days."""


@dataclass(frozen=True, kw_only=True)
class BudgetRecord(PacedLimits):
    """A budget."""

    id: str
    name: str
    owner: str
    """A team, an account, or a key by whose counters its limits count; empty: everybody."""
    provider: str
    model: str
    tag: str
    created_at: datetime
    warn_url: str
    warn_emails: list[str]
    team_id: str | None
    """The team whose owner made it, and in which it binds; None: an administrator made it."""


@dataclass(frozen=True, kw_only=True)
class InvitationRecord:
    """An invitation, without what is sent."""

    id: str
    team_id: str | None
    team_role: str | None
    made_by: str
    created_at: datetime
    expires_at: datetime
    used_by: str | None
    revoked_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """A session, without its token."""

    id: str
    digest: bytes
    created_at: datetime
    expires_at: datetime
    address: str


@dataclass(frozen=True, kw_only=True)
class KeyRecord(KeyLimits):
    """A key, without its secret."""

    id: str
    account_id: str
    name: str
    prefix: str
    scopes: list[dict[str, Any]]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    manages: list[str]
    counts_as: str | None
    """The key whose counters its own limits go on with, because it replaced it."""
    bound_by: str | None
    """The key with limits that made it, and whose limits it keeps together with all others that it made."""
    budgeted: bool = False
    """Whether a budget counts what it uses, which others must keep with it."""

    @property
    def counter(self) -> str:
        """Whose counters its own limits count on."""
        return self.counts_as or self.id


@dataclass(frozen=True, kw_only=True)
class RuleRecord:
    """A permission."""

    id: int
    provider: str
    model: str
    operations: list[int]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """What was used, of one model through one key on one day, or summed up over what is empty here."""

    month: date | None
    """Its first day."""
    day: date | None
    key_id: str
    provider: str
    model: str
    operation: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    unpriced_requests: int
    """Requests whose price is not known: no dollars of them are charged."""
    charged: Amount

    @property
    def nano_usd(self) -> int | None:
        """What the requests of known prices cost; None where there are only others."""
        known = max(0, self.charged.nano_usd)
        return None if self.unpriced_requests > 0 and self.unpriced_requests >= self.requests and not known else known


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """A row of the ledger."""

    id: int
    at: datetime
    kind: str
    key_id: str
    day: date
    reference: str
    amount: Amount
    provider: str | None
    model: str | None
    request_id: str | None
    price_unknown: bool


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """Something that an administrator did."""

    id: int
    at: datetime
    actor: str
    act: str
    account_id: str
    details: list[str]
