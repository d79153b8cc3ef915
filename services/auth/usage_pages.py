"""Pages of what was used, grouped as the caller asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final, Protocol

from moa.account.v1 import account_pb2
from services.auth import render
from services.auth.adapters.usage import EACH, Usage
from services.auth.domain.records import UsageRecord
from services.common import page_tokens
from services.common.errors import InvalidField

DIMENSIONS: Final = {
    "month": "month",
    "day": "day",
    "key": "key_id",
    "provider": "provider",
    "model": "model",
    "operation": "operation",
}
"""What usage may be grouped by, as callers and as rows name it, in the order of the rows."""


class Asked(Protocol):
    """What both requests for usage say."""

    from_day: str
    to_day: str
    page_size: int
    page_token: str

    @property
    def group_by(self) -> Iterable[str]:
        """Names of `DIMENSIONS`, each by itself or several parted by commas."""


async def page(usage: Usage, account_id: str, asked: Asked) -> tuple[list[account_pb2.UsageRow], str]:
    """Return the rows of a page and where the next one begins; raise InvalidField for what cannot be read."""
    days = render.read_days(asked.from_day, asked.to_day)
    groups = read_groups(asked.group_by)
    size = render.page_size(asked.page_size, default=1000, most=1000)
    after = read_token(asked.page_token, groups)
    rows = await usage.grouped(account_id, *days, by=groups, limit=size + 1, after=after)
    return [render.usage(row) for row in rows[:size]], token(rows[size - 1], groups) if len(rows) > size else ""


def read_groups(names: Iterable[str]) -> tuple[str, ...]:
    """Return what to group by, in the order of the rows; raise InvalidField for a name that is none."""
    given = {name.strip() for text in names for name in text.split(",")}
    if unknown := given - set(DIMENSIONS):
        raise InvalidField(f"{min(unknown)[:40]!r} is none of {', '.join(DIMENSIONS)}", param="group_by")
    return tuple(column for name, column in DIMENSIONS.items() if name in given) or EACH


def token(record: UsageRecord, groups: Sequence[str]) -> str:
    """Return where the page after a row begins."""
    place = {name: getattr(record, name) for name in groups}
    return page_tokens.written(place)


def read_token(text: str, groups: Sequence[str]) -> tuple[date | str | int, ...] | None:
    """Return the row's place, in the order of `groups`; None for the first page. Raises InvalidField."""
    place = page_tokens.read(text)
    if place is None:
        return None
    try:
        if not isinstance(place, dict) or list(place) != list(groups):
            raise ValueError
        return tuple(_value(name, place[name]) for name in groups)
    except (ValueError, TypeError):
        raise page_tokens.unknown() from None


def _value(name: str, value: object) -> date | str | int:
    if name == "operation" and type(value) is int:
        return value % 2**15
    if name != "operation" and isinstance(value, str):
        return date.fromisoformat(value) if name in ("day", "month") else value
    raise ValueError
