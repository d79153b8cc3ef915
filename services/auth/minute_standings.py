"""How limits over a minute stand, beside those that the ledger counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from moa.account.v1 import account_pb2
from services.auth.adapters.paces import Left, PacesKept
from services.auth.domain.accounts import PacedLimits
from services.auth.render import timestamp
from services.common.clock import now_utc
from services.quota_client.amounts import dollars, field_of

_MINUTE_S: Final = 60
_COUNTED: Final = ("requests_a_minute", "tokens_a_minute", "images_a_minute", "nano_usd_a_minute")


class Subject(NamedTuple):
    """Whose limits are shown."""

    id: str
    """What they are counted under."""
    limits: PacedLimits
    key_id: str = ""
    owner: str = ""
    name: str = ""


async def minute_standings(paces: PacesKept, subjects: Sequence[Subject]) -> list[account_pb2.LimitStanding]:
    """Return how each limit over a minute stands that any of these has."""
    limited = [one for one in subjects if any(getattr(one.limits, name) is not None for name in _COUNTED)]
    if not limited:
        return []
    left = await paces.left([one.id for one in limited])
    now = now_utc()
    return [standing for one in limited for standing in _of(one, left, now)]


def _of(subject: Subject, left: dict[tuple[str, str], Left], now: datetime) -> Iterable[account_pb2.LimitStanding]:
    for name in _COUNTED:
        most: int | None = getattr(subject.limits, name)
        if most is None:
            continue
        amount, ago_s = left.get((subject.id, name)) or Left(most, 0.0)
        # What was used comes back bit by bit.
        used = max(0, math.ceil(most - amount - most * max(0.0, ago_s) / _MINUTE_S))
        shown = dollars if name.startswith("nano_usd") else str
        standing = account_pb2.LimitStanding(
            limit=field_of(name),
            key_id=subject.key_id,
            most=shown(most),
            used=shown(used),
            owner=subject.owner,
            name=subject.name,
        )
        if used and most:
            standing.resets_at.CopyFrom(timestamp(now + timedelta(seconds=used * _MINUTE_S / most)))
        yield standing
