"""What a report of spending asks for, read from how people write it, and what it tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from services.common.errors import InvalidField
from services.quota_client.amounts import Amount

Time = Literal["day", "month"]
Group = Literal["team", "account", "key", "model", "provider", "dialect", "tag"]
TIMES: Final[tuple[Time, ...]] = ("day", "month")
GROUPS: Final[tuple[Group, ...]] = ("team", "account", "key", "model", "provider", "dialect", "tag")
OF_TEAM: Final = frozenset(GROUPS) - {"team"}
OF_ACCOUNT: Final = OF_TEAM - {"account"}
EVERYBODY: Final = ""
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}")
_MOST_DAYS: Final = 366


@dataclass(frozen=True)
class Report:
    """What to report."""

    scope: str
    """Whose: an account's id, a team's, or `EVERYBODY`."""
    time: Time
    group: Group
    first: date
    last: date


@dataclass(frozen=True, kw_only=True)
class SpendRecord:
    """What was spent of one group in one time."""

    starts: date | None
    """The day, or the first of the month; None in a total."""
    value: str
    """The group."""
    name: str
    requests: int
    unpriced_requests: int
    prompt_tokens: int
    completion_tokens: int
    spent: Amount


def read(by: Iterable[str], from_day: str, to_day: str, *, account_id: str = "", team_id: str = "") -> Report:
    """Return the report that is asked for. Raises InvalidField."""
    given = [name.strip() for text in by for name in text.split(",")]
    times, groups = [name for name in TIMES if name in given], [name for name in GROUPS if name in given]
    if unknown := set(given) - {*TIMES, *GROUPS}:
        raise InvalidField(f"{min(unknown)[:40]!r} is none of {', '.join((*TIMES, *GROUPS))}", param="by")
    if len(times) > 1 or len(groups) > 1:
        raise InvalidField("give one time, day or month, and one group", param="by")
    if account_id and team_id:
        raise InvalidField("give an account or a team", param="team_id")
    time, group = (*times, "month")[0], (*groups, "model")[0]
    allowed = OF_ACCOUNT if account_id else OF_TEAM if team_id else frozenset(GROUPS)
    if group not in allowed:
        whose = "an account" if account_id else "a team"
        raise InvalidField(f"what {whose} spent is not grouped by {group}", param="by")
    first, last = _days(from_day, to_day)
    if time == "month":
        first, last = first.replace(day=1), _month_end(last)
    return Report(account_id or team_id or EVERYBODY, time, group, first, last)


def _days(from_day: str, to_day: str) -> tuple[date, date]:
    last = _day(to_day, "to_day", ends=True) if to_day else (datetime.now(UTC) + timedelta(hours=14)).date()
    first = _day(from_day, "from_day") if from_day else date.fromordinal(max(1, last.toordinal() - 30))
    if not timedelta(0) <= last - first <= timedelta(days=_MOST_DAYS):
        raise InvalidField("the range is empty, or longer than a year", param="to_day")
    return first, last


def _day(text: str, param: str, *, ends: bool = False) -> date:
    """Return a day, or the first or last one of a month."""
    try:
        if _MONTH.fullmatch(text):
            first = date.fromisoformat(f"{text}-01")
            return _month_end(first) if ends else first
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidField("a day is written 2026-11-20, a month 2026-11", param=param) from None


def _month_end(day: date) -> date:
    following = day.replace(day=28).toordinal() + 4
    return date.fromordinal(following - date.fromordinal(following).day)
