"""Stored records as the messages of moa.account.v1, and what callers write read with care."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from moa.account.v1 import account_pb2, account_service_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.identities import rule_of
from services.auth.domain.accounts import CEILINGS, KeyLimits, Limits
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.auth.domain.records import (
    AccountRecord,
    AuditRecord,
    KeyRecord,
    LedgerRecord,
    RuleRecord,
    UsageRecord,
)
from services.common.errors import InvalidField
from services.quota_client import priorities

ROLES: Final = {"user": account_pb2.ROLE_USER, "admin": account_pb2.ROLE_ADMIN, "service": account_pb2.ROLE_SERVICE}
SCOPES: Final = {ACCOUNT: account_pb2.SCOPE_ACCOUNT, ADMIN: account_pb2.SCOPE_ADMIN}
_SCOPE_NAMES: Final = {value: name for name, value in SCOPES.items()}
ROLE_NAMES: Final = {value: name for name, value in ROLES.items()}
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")
_UINT32: Final = 2**32 - 1
MAX_RULES: Final = 100


def account(record: AccountRecord) -> account_pb2.Account:
    """Return an account."""
    return account_pb2.Account(
        account_id=record.id,
        email=record.email or "",
        name=record.name,
        role=ROLES[record.role],
        disabled=record.disabled_at is not None,
        unlimited=record.unlimited,
        limits=limits(record),
        granted_micro_credits=record.micro_credits,
        zone=record.zone,
        created_at=_stamp(record.created_at),
        priority=priorities.NUMBERS[record.priority],
    )


def limits(record: AccountRecord) -> account_pb2.Limits:
    """Return an account's limits."""
    return account_pb2.Limits(
        tokens_a_day=min(record.tokens_a_day, _UINT32),
        images_a_day=min(record.images_a_day, _UINT32),
        keys=record.key_count,
        requests_per_minute=record.requests_a_minute,
        concurrent_requests=record.concurrent_requests,
    )


def key(record: KeyRecord) -> account_pb2.Key:
    """Return a key."""
    return account_pb2.Key(
        key_id=record.id,
        name=record.name,
        prefix=record.prefix,
        scopes=[rule_of(scope) for scope in record.scopes],
        tokens_a_day=record.tokens_a_day,
        images_a_day=record.images_a_day,
        requests_per_minute=record.requests_a_minute,
        concurrent_requests=record.concurrent_requests,
        priority=priorities.NUMBERS[record.priority] if record.priority else quota_pb2.PRIORITY_UNSPECIFIED,
        created_at=_stamp(record.created_at),
        expires_at=_stamp(record.expires_at),
        revoked_at=_stamp(record.revoked_at),
        last_used_at=_stamp(record.last_used_at),
        manages=[SCOPES[scope] for scope in sorted(record.manages)],
        bound_by=record.bound_by or "",
    )


def rule(record: RuleRecord) -> account_pb2.StoredRule:
    """Return a permission."""
    stored = quota_pb2.Rule(provider=record.provider, model=record.model)
    stored.operations.extend(quota_pb2.Operation.ValueType(number) for number in record.operations)
    return account_pb2.StoredRule(rule_id=record.id, rule=stored, created_at=_stamp(record.created_at))


def usage(record: UsageRecord) -> account_pb2.UsageRow:
    """Return a row of usage."""
    return account_pb2.UsageRow(
        day=record.day.isoformat() if record.day else "",
        month=f"{record.month:%Y-%m}" if record.month else "",
        key_id=record.key_id,
        provider=record.provider,
        model=record.model,
        operation=quota_pb2.Operation.ValueType(record.operation),
        requests=record.requests,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        charged_tokens=max(0, record.charged_tokens),
        charged_images=max(0, record.charged_images),
    )


def ledger_row(record: LedgerRecord) -> account_pb2.LedgerRow:
    """Return a row of the ledger."""
    return account_pb2.LedgerRow(
        id=record.id,
        at=_stamp(record.at),
        kind=record.kind,
        key_id=record.key_id,
        day=record.day.isoformat(),
        reference=record.reference,
        tokens=record.tokens,
        images=record.images,
        provider=record.provider or "",
        model=record.model or "",
        request_id=record.request_id or "",
    )


def audit_entry(record: AuditRecord) -> account_pb2.AuditEntry:
    """Return an entry of the audit log."""
    return account_pb2.AuditEntry(
        id=record.id,
        at=_stamp(record.at),
        actor=record.actor,
        act=record.act,
        account_id=record.account_id,
        details=record.details,
    )


def timestamp(at: datetime) -> Timestamp:
    """Return a time."""
    stamp = Timestamp()
    stamp.FromDatetime(at.astimezone(UTC))
    return stamp


def _stamp(at: datetime | None) -> Timestamp | None:
    return timestamp(at) if at else None


def read_email(text: str) -> str:
    """Read an address; case does not count. Raises InvalidField."""
    email = text.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise InvalidField("this is not an email address", param="email")
    return email


def read_name(text: str) -> str:
    """Read a name. Raises InvalidField."""
    name = text.strip()
    if not name.isprintable():
        raise InvalidField("a name has printable characters only", param="name")
    return name


def read_rules(given: Iterable[quota_pb2.Rule], param: str) -> list[quota_pb2.Rule]:
    """Read permissions; an empty provider or model means every one. Raises InvalidField."""
    rules = []
    for one in given:
        known = [number for number in one.operations if number and number in quota_pb2.Operation.values()]
        if len(known) != len(one.operations):
            raise InvalidField("no such operation", param=param)
        rules.append(quota_pb2.Rule(provider=one.provider or "*", model=one.model or "*", operations=known))
    return rules


def read_key_limits(given: account_service_pb2.CreateKeyRequest) -> KeyLimits:
    """Read a key's own limits. Raises InvalidField."""
    return KeyLimits(
        tokens_a_day=given.tokens_a_day if given.HasField("tokens_a_day") else None,
        images_a_day=given.images_a_day if given.HasField("images_a_day") else None,
        requests_a_minute=given.requests_per_minute if given.HasField("requests_per_minute") else None,
        concurrent_requests=given.concurrent_requests if given.HasField("concurrent_requests") else None,
        priority=read_priority(given.priority),
    )


def read_manages(given: Iterable[account_pb2.Scope.ValueType]) -> frozenset[str]:
    """Read what a key manages. Raises InvalidField."""
    found = frozenset(given)
    if not found <= _SCOPE_NAMES.keys():
        raise InvalidField("no such scope", param="manages")
    return frozenset(_SCOPE_NAMES[scope] for scope in found)


def read_priority(given: quota_pb2.Priority.ValueType) -> str | None:
    """Read a priority; None for none in particular. Raises InvalidField."""
    if given == quota_pb2.PRIORITY_UNSPECIFIED:
        return None
    if given not in priorities.NAMES:
        raise InvalidField("no such priority", param="priority")
    return priorities.NAMES[given]


def read_limits(given: account_pb2.Limits, *, role: str) -> Limits:
    """Read limits; those of users stay below the ceilings. Raises InvalidField."""
    wanted = Limits(
        tokens_a_day=given.tokens_a_day,
        images_a_day=given.images_a_day,
        key_count=given.keys,
        requests_a_minute=given.requests_per_minute,
        concurrent_requests=given.concurrent_requests,
    )
    if wanted.key_count > CEILINGS.key_count:
        raise InvalidField(f"at most {CEILINGS.key_count} keys", param="limits.keys")
    if role != "service":
        if wanted.tokens_a_day > CEILINGS.tokens_a_day:
            raise InvalidField(f"at most {CEILINGS.tokens_a_day} tokens a day", param="limits.tokens_a_day")
        if wanted.images_a_day > CEILINGS.images_a_day:
            raise InvalidField(f"at most {CEILINGS.images_a_day} images a day", param="limits.images_a_day")
    if max(wanted.requests_a_minute, wanted.concurrent_requests) > 2**31 - 1:
        raise InvalidField("the number is too large", param="limits")
    return wanted


def read_days(from_day: str, to_day: str) -> tuple[date, date]:
    """Read a range of days; thirty days to today (UTC, or the day that has begun elsewhere) by default."""
    last = _day(to_day, "to_day") if to_day else (datetime.now(UTC) + timedelta(hours=14)).date()
    first = _day(from_day, "from_day") if from_day else date.fromordinal(max(1, last.toordinal() - 30))
    if not timedelta(0) <= last - first <= timedelta(days=366):
        raise InvalidField("the range is empty, or longer than a year", param="to_day")
    return first, last


def _day(text: str, param: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidField("a day is written 2026-11-20", param=param) from None


def read_token(text: str) -> int | None:
    """Read a page token that is a number; None for the first page. Raises InvalidField."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidField("page_token is not of this list; start without one", param="page_token")
    return int(text)


def page_size(given: int, *, default: int, most: int) -> int:
    """Return how many rows a page has."""
    return min(given, most) if given else default
