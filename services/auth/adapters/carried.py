"""Blocks of credits that task services of the release before had set aside, made anew in the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from services.auth.adapters import moves
from services.auth.adapters.columns import zone_of
from services.auth.adapters.postgres import Postgres
from services.auth.domain.carrying import CarriedBlock
from services.auth.domain.ledger import Block
from services.quota_client.amounts import Amount

_MAKE: Final = f"""
insert into blocks (id, account_id, key_id, day, holder, tokens, images, micro_credits, expires_at)
select t.id, t.account_id, t.key_id, (t.at at time zone coalesce({zone_of("a", at="t.at")}, 'UTC'))::date,
       'tasks', 0, 0, t.micro_credits, now() + t.lasts
from unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::timestamptz[], %s::interval[])
     as t (id, account_id, key_id, micro_credits, at, lasts)
left join accounts a on a.id = t.account_id
order by t.id on conflict (id) do nothing returning id, account_id, key_id, day, micro_credits
"""


class CarriedBlocks:
    """Makes such blocks."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def make(self, blocks: Sequence[CarriedBlock]) -> None:
        """Set credits aside that are not yet, on the days on which they were. None is refused: they were granted."""
        if not blocks:
            return
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                _MAKE,
                (
                    [block.id for block in blocks],
                    [block.account_id for block in blocks],
                    [block.key_id for block in blocks],
                    [block.amount.micro_credits for block in blocks],
                    [block.at for block in blocks],
                    [block.lasts for block in blocks],
                ),
            )
            made = [
                Block(block_id, account_id, key_id, day.isoformat(), Amount(micro_credits=micro_credits))
                for block_id, account_id, key_id, day, micro_credits in await cursor.fetchall()
            ]
            days: dict[tuple[str, str], Amount] = defaultdict(Amount)
            for block in made:
                for subject in block.subjects:
                    days[subject, block.day] += block.outstanding
            async with link.cursor() as many:
                await many.executemany(
                    "insert into quota_counters (subject, starts) values (%s, %s) on conflict do nothing", sorted(days)
                )
            await moves.lock_days(link, made)
            await moves.days_moved(link, days)
            await moves.insert(link, [moves.row("borrow", block, str(block.id), block.outstanding) for block in made])
