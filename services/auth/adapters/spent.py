"""What whoever has limits has spent of them: what is charged, without what blocks still hold."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from services.auth.adapters.columns import each
from services.auth.adapters.postgres import Link
from services.quota_client.amounts import Amount, Period

_SPENT: Final = f"""
select p.period, p.ends::timestamp at time zone %(zone)s, {each("coalesce(c.{}, 0) - coalesce(b.{}, 0)")}
from periods_of((now() at time zone %(zone)s)::date) p
     left join quota_counters c on c.subject = %(subject)s and c.period = p.period and c.starts = p.starts,
     lateral (select {each("sum({} - settled_{} - returned_{})::bigint as {}")} from blocks
              where closed_at is null and %(subject)s = any(counts_as)
              and day >= p.starts and (p.ends is null or day < p.ends)) b
"""


async def spent_of(link: Link, subject: str, zone: str) -> dict[Period, tuple[Amount, datetime | None]]:
    """Return what a team or a budget has spent of each period of today, and when that ends."""
    cursor = await link.execute(_SPENT, {"subject": subject, "zone": zone})
    return {Period(period): (Amount(*amounts), ends) for period, ends, *amounts in await cursor.fetchall()}
