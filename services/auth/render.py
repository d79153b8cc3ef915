"""Stored records as the messages of moa.account.v1, and what callers write read with care."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from moa.account.v1 import account_pb2, account_service_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.verified_keys import rule_of
from services.auth.domain.accounts import CEILINGS, DEFAULT_LIMITS, PACES, KeyLimits, Limits, PacedLimits
from services.auth.domain.emails import EMAIL
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.auth.domain.records import (
    AccountRecord,
    AuditRecord,
    KeyRecord,
    LedgerRecord,
    RuleRecord,
    TeamRecord,
    UsageRecord,
)
from services.common.errors import InvalidField
from services.quota_client import priorities
from services.quota_client.amounts import (
    DIMENSIONS,
    LIMITS,
    NANO,
    NOTHING,
    UNLIMITED,
    Amount,
    Period,
    dollars,
    field_of,
    limit_shown,
    named,
)

ROLES: Final = {"user": account_pb2.ROLE_USER, "admin": account_pb2.ROLE_ADMIN, "service": account_pb2.ROLE_SERVICE}
TEAM_ROLES: Final = {"owner": account_pb2.TEAM_ROLE_OWNER, "member": account_pb2.TEAM_ROLE_MEMBER}
TEAM_ROLE_NAMES: Final = {value: name for name, value in TEAM_ROLES.items()}
SCOPES: Final = {ACCOUNT: account_pb2.SCOPE_ACCOUNT, ADMIN: account_pb2.SCOPE_ADMIN}
_SCOPE_NAMES: Final = {value: name for name, value in SCOPES.items()}
ROLE_NAMES: Final = {value: name for name, value in ROLES.items()}
_UINT32: Final = 2**32 - 1
_INT32: Final = 2**31 - 1
_DOLLARS: Final = re.compile(r"(?P<whole>[0-9]{1,12})(?:\.(?P<part>[0-9]{1,9}))?")
_LIMITS: Final = (*LIMITS, *PACES)
_MOST_OF_PACES: Final = {"nano_usd_a_minute": 2**53}
"""Minutes are counted in numbers that are exact up to here: nine million dollars."""
MAX_RULES: Final = 100
MAX_TEAM_KEYS: Final = 1000


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
        next_zone=record.next_zone or "",
        next_zone_at=_stamp(record.next_zone_at),
        created_at=_stamp(record.created_at),
        priority=priorities.NUMBERS[record.priority],
        team_id=record.team_id or "",
        team_role=TEAM_ROLES.get(record.team_role or "", account_pb2.TEAM_ROLE_UNSPECIFIED),
        deleted_at=_stamp(record.deleted_at),
        stores_responses=record.stores_responses,
    )


def limits(record: PacedLimits) -> account_pb2.Limits:
    """Return the limits of an account or a key."""
    message = account_pb2.Limits()
    for name in _LIMITS:
        limit = getattr(record, name)
        if limit is not None:
            is_small = message.DESCRIPTOR.fields_by_name[field_of(name)].type == FieldDescriptor.TYPE_UINT32
            shown = dollars(limit) if name.startswith("nano_usd") else min(limit, _UINT32) if is_small else limit
            setattr(message, field_of(name), shown)
    if isinstance(record, (Limits, TeamRecord)):
        message.keys = record.key_count
    return message


def standings(
    record: PacedLimits,
    key_id: str,
    spent: Mapping[Period, tuple[Amount, datetime | None]],
    *,
    owner: str = "",
    name_of_owner: str = "",
) -> Iterable[account_pb2.LimitStanding]:
    """Yield how each limit over a period stands that an account, one of its keys, or (`owner`) another has."""
    for name, most in record.amounts().items():
        if most is None:
            continue
        dimension, period = named(name)
        used, ends = spent[period]
        amount = max(0, getattr(used, dimension))
        is_money = dimension == "nano_usd"
        yield account_pb2.LimitStanding(
            limit=field_of(name),
            key_id=key_id,
            most=dollars(most) if is_money else str(most),
            used=dollars(amount) if is_money else str(amount),
            resets_at=_stamp(ends),
            owner=owner,
            name=name_of_owner,
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
        tokens_per_minute=record.tokens_a_minute,
        priority=priorities.NUMBERS[record.priority] if record.priority else quota_pb2.PRIORITY_UNSPECIFIED,
        created_at=_stamp(record.created_at),
        expires_at=_stamp(record.expires_at),
        revoked_at=_stamp(record.revoked_at),
        last_used_at=_stamp(record.last_used_at),
        manages=[SCOPES[scope] for scope in sorted(record.manages)],
        bound_by=record.bound_by or "",
        limits=limits(record) if any(getattr(record, name) is not None for name in _LIMITS) else None,
    )


def rule(record: RuleRecord, warning: str = "") -> account_pb2.StoredRule:
    """Return a permission, with what is odd of it."""
    stored = quota_pb2.Rule(provider=record.provider, model=record.model)
    stored.operations.extend(quota_pb2.Operation.ValueType(number) for number in record.operations)
    return account_pb2.StoredRule(rule_id=record.id, rule=stored, created_at=_stamp(record.created_at), warning=warning)


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
        unpriced_requests=max(0, record.unpriced_requests),
        **_amount(record.charged.at_least(NOTHING), account_pb2.UsageRow.DESCRIPTOR, "charged_")
        | {"charged_nano_usd": record.nano_usd},
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
        **_amount(record.amount, account_pb2.LedgerRow.DESCRIPTOR),
        provider=record.provider or "",
        model=record.model or "",
        request_id=record.request_id or "",
        price_unknown=record.price_unknown,
    )


def _amount(amount: Amount, message: Descriptor, prefix: str = "") -> dict[str, Any]:
    """Return an amount by the fields that a message has for its dimensions."""
    fields = zip((prefix + name for name in DIMENSIONS), amount, strict=True)
    return {name: value for name, value in fields if name in message.fields_by_name}


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
    if not EMAIL.fullmatch(email):
        raise InvalidField("this is not an email address", param="email")
    return email


def read_name(text: str) -> str:
    """Read a name. Raises InvalidField."""
    name = text.strip()
    if not name.isprintable():
        raise InvalidField("a name has printable characters only", param="name")
    return name


def read_storing(given: account_service_pb2.UpdateMeRequest) -> bool | None:
    """Read whether responses are stored; None for what the operator's default is. Raises InvalidField."""
    if not given.by_default:
        return given.stores_responses
    if set(given.by_default) != {"stores_responses"} or given.HasField("stores_responses"):
        raise InvalidField("it names `stores_responses`, where that has no value, and nothing else", param="by_default")
    return None


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
    """Read a new key's own limits. Raises InvalidField."""
    asked = account_pb2.Limits()
    for name in ("tokens_a_day", "images_a_day", "requests_per_minute", "concurrent_requests", "tokens_per_minute"):
        if given.HasField(name):
            setattr(asked, name, getattr(given, name))
    asked.MergeFrom(given.limits)
    return key_limits(read_key_changes(asked), read_priority(given.priority))


def key_limits(changes: Mapping[str, Any], priority: str | None = None) -> KeyLimits:
    """Return a new key's own limits, as they were read by column."""
    return KeyLimits(priority=priority, **changes)


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
    """Read a new account's limits: what is not given has its default. Raises InvalidField."""
    return replace(DEFAULT_LIMITS, **read_limit_changes(given, (), role=role))


def read_limit_changes(given: account_pb2.Limits, without: Iterable[str], *, role: str) -> dict[str, Any]:
    """Read changes of an account's limits, by column; those of users stay below the ceilings. Raises InvalidField."""
    changes = _read_changes(given, without)
    if given.HasField("keys"):
        if given.keys > CEILINGS.key_count:
            raise InvalidField(f"at most {CEILINGS.key_count} keys", param="limits.keys")
        changes["key_count"] = given.keys
    if role != "service":
        for name, most in CEILINGS.amounts().items():
            if most is None or name not in changes:
                continue
            if changes[name] is None:
                raise InvalidField(
                    f"a user has a limit of at most {limit_shown(name, most)}: give one up to it; only an account of"
                    " the role service may have none",
                    param="no_limit",
                )
            if changes[name] > most:
                raise InvalidField(f"at most {limit_shown(name, most)}", param=f"limits.{field_of(name)}")
    return changes


def read_key_changes(given: account_pb2.Limits, without: Iterable[str] = ()) -> dict[str, Any]:
    """Read changes of a key's own limits, by column. Raises InvalidField."""
    if given.HasField("keys"):
        raise InvalidField("only an account has a number of keys", param="limits.keys")
    return _read_changes(given, without)


def read_team_changes(given: account_pb2.Limits, without: Iterable[str] = ()) -> dict[str, Any]:
    """Read changes of a team's limits, by column. Raises InvalidField."""
    changes = _read_changes(given, without)
    if given.HasField("keys"):
        if given.keys > MAX_TEAM_KEYS:
            raise InvalidField(f"at most {MAX_TEAM_KEYS} keys", param="limits.keys")
        changes["key_count"] = given.keys
    return changes


def _read_changes(given: account_pb2.Limits, without: Iterable[str]) -> dict[str, Any]:
    by_field = {field_of(name): name for name in _LIMITS}
    changes: dict[str, Any] = {}
    for field in without:
        if field not in by_field:
            raise InvalidField(f"no such limit; there are {', '.join(by_field)}", param="no_limit")
        changes[by_field[field]] = None
    given_fields = {descriptor.name: value for descriptor, value in given.ListFields()}
    for field, name in by_field.items():
        if field not in given_fields:
            continue
        if name in changes:
            raise InvalidField(
                f"`{field}` is both in `limits` and in `no_limit`; give it in one of them", param="no_limit"
            )
        value = given_fields[field]
        limit = _read_dollars(value, f"limits.{field}") if isinstance(value, str) else value
        if limit > (_MOST_OF_PACES.get(name, _INT32) if name in PACES else UNLIMITED):
            raise InvalidField(
                f"the limit is too large; to have none, name `{field}` in `no_limit`", param=f"limits.{field}"
            )
        if name in PACES and limit == 0:
            least = "more than 0" if isinstance(value, str) else "at least 1"
            raise InvalidField(
                f"{least}: to let nothing begin, disable the account or revoke the key; to take the limit away, name"
                f" `{field}` in `no_limit`",
                param=f"limits.{field}",
            )
        changes[name] = limit
    return changes


def _read_dollars(text: str, param: str) -> int:
    """Read dollars as nano-dollars. Raises InvalidField."""
    found = _DOLLARS.fullmatch(text)
    if found is None:
        raise InvalidField(
            'dollars are written "5.00": no sign, at most twelve digits, a point and nine decimals', param=param
        )
    return int(found["whole"]) * NANO + int((found["part"] or "").ljust(9, "0"))


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


def page_size(given: int, *, default: int, most: int) -> int:
    """Return how many rows a page has."""
    return min(given, most) if given else default
