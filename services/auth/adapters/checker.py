"""The ledger's checker: recomputes every counter from the ledger, and lists what needs a person's eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString

from services.auth.adapters.postgres import Link, Postgres

# Each gives the rows at which the books do not balance: none, if all is well.
_CHECKS: Final[dict[str, LiteralString]] = {
    "a block's counters differ from the ledger": """
        select b.id::text as block, b.account_id, b.day::text,
               b.tokens - coalesce(l.borrowed_tokens, 0) as borrowed_tokens_off,
               b.settled_tokens - coalesce(l.settled_tokens, 0) as settled_tokens_off,
               b.returned_tokens - coalesce(l.returned_tokens, 0) as returned_tokens_off,
               b.images - coalesce(l.borrowed_images, 0) as borrowed_images_off,
               b.settled_images - coalesce(l.settled_images, 0) as settled_images_off,
               b.returned_images - coalesce(l.returned_images, 0) as returned_images_off
        from blocks b left join (
            select block_id,
                   sum(tokens) filter (where kind in ('borrow', 'grow')) as borrowed_tokens,
                   sum(images) filter (where kind in ('borrow', 'grow')) as borrowed_images,
                   sum(tokens) filter (where kind in ('settle', 'orphan')) as settled_tokens,
                   sum(images) filter (where kind in ('settle', 'orphan')) as settled_images,
                   sum(tokens) filter (where kind in ('return', 'expire')) as returned_tokens,
                   sum(images) filter (where kind in ('return', 'expire')) as returned_images
            from ledger group by block_id
        ) l on l.block_id = b.id
        where (b.tokens, b.images, b.settled_tokens, b.settled_images, b.returned_tokens, b.returned_images)
              is distinct from
              (coalesce(l.borrowed_tokens, 0), coalesce(l.borrowed_images, 0), coalesce(l.settled_tokens, 0),
               coalesce(l.settled_images, 0), coalesce(l.returned_tokens, 0), coalesce(l.returned_images, 0))
    """,
    "a day's counter differs from the ledger": """
        with moved as (
            select account_id as subject, day,
                   case when kind in ('borrow', 'grow', 'late') then tokens
                        when kind in ('return', 'expire') then -tokens
                        else 0 end as tokens,
                   case when kind in ('borrow', 'grow', 'late') then images
                        when kind in ('return', 'expire') then -images
                        else 0 end as images
            from ledger
            union all
            -- An id that once stood for an account and its key is one subject, counted once.
            select c.subject, l.day,
                   case when kind in ('borrow', 'grow', 'late') then l.tokens
                        when kind in ('return', 'expire') then -l.tokens
                        else 0 end,
                   case when kind in ('borrow', 'grow', 'late') then l.images
                        when kind in ('return', 'expire') then -l.images
                        else 0 end
            from ledger l left join blocks b on b.id = l.block_id,
                 unnest(coalesce(b.counts_as, array[l.key_id])) as c (subject)
            where c.subject <> l.account_id
        ), summed as (select subject, day, sum(tokens) as tokens, sum(images) as images from moved group by 1, 2)
        select coalesce(q.subject, s.subject) as subject, coalesce(q.day, s.day)::text as day,
               coalesce(q.tokens, 0) - coalesce(s.tokens, 0) as tokens_off,
               coalesce(q.images, 0) - coalesce(s.images, 0) as images_off
        from quota_days q full join summed s using (subject, day)
        where coalesce(q.tokens, 0) <> coalesce(s.tokens, 0) or coalesce(q.images, 0) <> coalesce(s.images, 0)
    """,
    "a block ended with something outstanding": """
        select id::text as block, account_id, day::text, tokens - settled_tokens - returned_tokens as tokens,
               images - settled_images - returned_images as images
        from blocks where closed_at is not null
        and (tokens <> settled_tokens + returned_tokens or images <> settled_images + returned_images)
    """,
    "a block's time is long over, and nobody took it back": """
        select id::text as block, account_id, day::text, holder, expires_at::text
        from blocks where closed_at is null and expires_at < now() - interval '5 minutes'
    """,
    "a reservation was charged twice": """
        select reference as reservation, count(*) from ledger where kind in ('settle', 'orphan', 'late')
        group by reference having count(*) filter (where kind = 'settle') > 0 and count(*) > 1
    """,
    "a reservation was charged more than its grant": """
        with charged as (
            select reference, sum(case when kind = 'grow' then -tokens else tokens end)::bigint as tokens,
                   sum(case when kind = 'grow' then -images else images end)::bigint as images
            from ledger where kind in ('settle', 'orphan', 'grow') group by reference
        )
        select reference as reservation, tokens, images from charged
        where tokens > split_part(reference, '.', 3)::bigint or images > split_part(reference, '.', 4)::bigint
    """,
    "a reservation is open in a block that ended": """
        select o.reservation_id as reservation, b.account_id from open_reservations o
        join blocks b on b.id = o.block_id where o.held and b.closed_at is not null
        and not exists (select 1 from ledger l where l.reference = o.reservation_id)
    """,
    "credits granted differ from their entries": """
        select a.id as account, a.micro_credits - coalesce(c.micro_credits, 0) as micro_credits_off
        from accounts a left join (select account_id, sum(micro_credits) as micro_credits from credits group by 1) c
        on c.account_id = a.id where a.micro_credits <> coalesce(c.micro_credits, 0)
    """,
}

_TOTALS: Final = """
    select coalesce(sum(tokens) filter (where kind in ('borrow', 'grow')), 0)::bigint,
           coalesce(sum(tokens) filter (where kind in ('settle', 'orphan')), 0)::bigint,
           coalesce(sum(tokens) filter (where kind in ('return', 'expire')), 0)::bigint,
           coalesce(sum(tokens) filter (where kind = 'late'), 0)::bigint,
           coalesce(sum(images) filter (where kind in ('borrow', 'grow')), 0)::bigint,
           coalesce(sum(images) filter (where kind in ('settle', 'orphan')), 0)::bigint,
           coalesce(sum(images) filter (where kind in ('return', 'expire')), 0)::bigint,
           coalesce(sum(images) filter (where kind = 'late'), 0)::bigint,
           count(*)
    from ledger
"""
_NOTES: Final[dict[str, LiteralString]] = {
    # Charged as last reported, because their holder vanished. A `late` row corrects one that was settled after all.
    "orphans": """
        select o.at::text, o.reference as reservation, o.account_id, o.key_id, o.day::text, o.provider, o.model,
               o.request_id, o.tokens, o.images, l.tokens as corrected_tokens, l.images as corrected_images
        from ledger o left join ledger l on l.reference = o.reference and l.kind = 'late'
        where o.kind = 'orphan' order by o.id desc limit %s
    """,
    # Consumed and not charged: beyond what was reserved, or settled when the day had no room left.
    "uncovered": """
        select at::text, kind, reference as reservation, account_id, day::text, provider, model, request_id,
               uncovered_tokens, uncovered_images
        from ledger where uncovered_tokens > 0 or uncovered_images > 0 order by id desc limit %s
    """,
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a check found."""

    rows: int
    """Rows of the ledger."""
    totals: dict[str, dict[str, int]]
    """Borrowed, spent, returned and outstanding, of tokens and images; outstanding is what is left of borrowed."""
    faults: dict[str, list[dict[str, Any]]]
    """Where the books do not balance; empty when they do."""
    notes: dict[str, list[dict[str, Any]]]
    """Orphans, and what was consumed and not charged."""


class Checker:
    """Checks the books, on one snapshot of the database."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def check(self, *, most: int = 100) -> Findings:
        """Recompute everything; list `most` rows of each finding at most."""
        async with self._postgres.transaction() as link:
            await link.execute("set transaction isolation level repeatable read, read only")
            await link.execute("set local statement_timeout = 0")
            faults = {}
            for name, statement in _CHECKS.items():
                rows = await _dicts(link, statement, ())
                if rows:
                    faults[name] = rows[:most]
            totals = await (await link.execute(_TOTALS)).fetchone()
            assert totals is not None
            notes = {name: await _dicts(link, statement, (most,)) for name, statement in _NOTES.items()}
        return Findings(
            rows=totals[8],
            totals={"tokens": _summed(*totals[0:4]), "images": _summed(*totals[4:8])},
            faults=faults,
            notes=notes,
        )


def _summed(borrowed: int, settled: int, returned: int, late: int) -> dict[str, int]:
    return {
        "borrowed": borrowed,
        "spent": settled + late,
        "returned": returned,
        "outstanding": borrowed - settled - returned,
    }


async def _dicts(link: Link, statement: LiteralString, parameters: tuple[object, ...]) -> list[dict[str, Any]]:
    cursor = await link.execute(statement, parameters or None)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
