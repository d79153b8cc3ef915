"""What the ledger's checker asks the database: each statement gives the rows at which the books do not balance."""

from __future__ import annotations

from typing import Final, LiteralString

_MOVED: Final = """
    case when kind in ('borrow', 'grow', 'late') then l.{unit} when kind in ('return', 'expire') then -l.{unit}
         else 0 end as {unit}
"""
_BLOCKS: Final = """
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
        from ledger where {ledger} group by block_id
    ) l on l.block_id = b.id
    where {blocks} and (b.tokens, b.images, b.settled_tokens, b.settled_images, b.returned_tokens, b.returned_images)
          is distinct from
          (coalesce(l.borrowed_tokens, 0), coalesce(l.borrowed_images, 0), coalesce(l.settled_tokens, 0),
           coalesce(l.settled_images, 0), coalesce(l.returned_tokens, 0), coalesce(l.returned_images, 0))
"""
_DAYS: Final = (
    """
    with moved as (
        select account_id as subject, day, """
    + _MOVED.format(unit="tokens")
    + ", "
    + _MOVED.format(unit="images")
    + """
        from ledger l where {ledger}
        union all
        -- An id that once stood for an account and its key is one subject, counted once.
        select c.subject, l.day, """
    + _MOVED.format(unit="tokens")
    + ", "
    + _MOVED.format(unit="images")
    + """
        from ledger l left join blocks b on b.id = l.block_id,
             unnest(coalesce(b.counts_as, array[l.key_id])) as c (subject)
        where {ledger} and c.subject <> l.account_id
        union all
        select subject, day, borrowed_tokens - returned_tokens + late_tokens,
               borrowed_images - returned_images + late_images
        from ledger_carried l where {carried}
    ), summed as (select subject, day, sum(tokens) as tokens, sum(images) as images from moved group by 1, 2)
    select coalesce(q.subject, s.subject) as subject, coalesce(q.day, s.day)::text as day,
           coalesce(q.tokens, 0) - coalesce(s.tokens, 0) as tokens_off,
           coalesce(q.images, 0) - coalesce(s.images, 0) as images_off
    from quota_days q {join} join summed s using (subject, day)
    where coalesce(q.tokens, 0) <> coalesce(s.tokens, 0) or coalesce(q.images, 0) <> coalesce(s.images, 0)
"""
)
_ENDED: Final = """
    select b.id::text as block, account_id, day::text, tokens - settled_tokens - returned_tokens as tokens,
           images - settled_images - returned_images as images
    from blocks b where {blocks} and closed_at is not null
    and (tokens <> settled_tokens + returned_tokens or images <> settled_images + returned_images)
"""
_TWICE: Final = """
    select reference as reservation, count(*) from ledger where kind in ('settle', 'orphan', 'late') and {references}
    group by reference having count(*) filter (where kind = 'settle') > 0 and count(*) > 1
"""
_BEYOND: Final = """
    with charged as (
        select reference, sum(case when kind = 'grow' then -tokens else tokens end)::bigint as tokens,
               sum(case when kind = 'grow' then -images else images end)::bigint as images
        from ledger where kind in ('settle', 'orphan', 'grow') and {references} group by reference
    )
    select reference as reservation, tokens, images from charged
    where tokens > split_part(reference, '.', 3)::bigint or images > split_part(reference, '.', 4)::bigint
"""
_USAGE: Final = """
    with charged as (
        select account_id, day, tokens, images from ledger l where kind in ('settle', 'orphan', 'late') and {days}
        union all
        select account_id, day, settled_tokens + late_tokens, settled_images + late_images from ledger_carried l
        where subject = account_id and {days}
    ), booked as (
        select account_id, day, sum(tokens) as tokens, sum(images) as images from charged group by 1, 2
    ), told as (
        select account_id, day, sum(charged_tokens) as tokens, sum(charged_images) as images from usage_days l
        where {days} group by 1, 2
    )
    select account_id as account, day::text, coalesce(t.tokens, 0) - coalesce(b.tokens, 0) as tokens_off,
           coalesce(t.images, 0) - coalesce(b.images, 0) as images_off
    from booked b full join told t using (account_id, day)
    where coalesce(t.tokens, 0) <> coalesce(b.tokens, 0) or coalesce(t.images, 0) <> coalesce(b.images, 0)
"""
_STATEMENTS: Final = {
    "a block's counters differ from the ledger": _BLOCKS,
    "a day's counter differs from the ledger": _DAYS,
    "a block ended with something outstanding": _ENDED,
    "a day's usage differs from the ledger": _USAGE,
    "a reservation was charged twice": _TWICE,
    "a reservation was charged more than its grant": _BEYOND,
}
_WHOLE: Final = {
    "ledger": "true",
    "carried": "true",
    "days": "true",
    "blocks": "true",
    "references": "true",
    "join": "full",
}
_RANGE: Final = "id > %(after)s and id <= %(upto)s"
_TOUCHED: Final = f"in (select block_id from ledger where {_RANGE})"
_TOUCHED_DAYS: Final = f"(l.account_id, l.day) in (select account_id, day from ledger where {_RANGE})"

WHOLE: Final[dict[str, LiteralString]] = {name: text.format(**_WHOLE) for name, text in _STATEMENTS.items()}
"""Of everything, counters that no row of the ledger has to do with included."""
OF_ROWS: Final[dict[str, LiteralString]] = {
    name: text.format(
        # All of a block, all of an account's day: what a row moved must agree with what all others moved.
        ledger=_TOUCHED_DAYS if text is _DAYS else f"block_id {_TOUCHED}",
        carried=_TOUCHED_DAYS,
        days=_TOUCHED_DAYS,
        blocks=f"b.id {_TOUCHED}",
        references=f"reference in (select reference from ledger where {_RANGE})",
        join="right",
    )
    for name, text in _STATEMENTS.items()
}
"""Of what the ledger's rows between two numbers have to do with: `after`, which is not one of them, and `upto`."""
OF_NOW: Final[dict[str, LiteralString]] = {
    "a block's counters differ from the ledger": _BLOCKS.format(
        ledger="block_id in (select id from blocks where closed_at is null)", blocks="b.closed_at is null"
    ),
    "a block's time is long over, and nobody took it back": """
        select id::text as block, account_id, day::text, holder, expires_at::text
        from blocks where closed_at is null and expires_at < now() - interval '5 minutes'
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
"""Of what is open, and of what is not in the ledger."""

TOTALS: Final = """
    select coalesce(sum(tokens) filter (where kind in ('borrow', 'grow')), 0)::bigint,
           coalesce(sum(tokens) filter (where kind in ('settle', 'orphan')), 0)::bigint,
           coalesce(sum(tokens) filter (where kind in ('return', 'expire')), 0)::bigint,
           coalesce(sum(tokens) filter (where kind = 'late'), 0)::bigint,
           coalesce(sum(images) filter (where kind in ('borrow', 'grow')), 0)::bigint,
           coalesce(sum(images) filter (where kind in ('settle', 'orphan')), 0)::bigint,
           coalesce(sum(images) filter (where kind in ('return', 'expire')), 0)::bigint,
           coalesce(sum(images) filter (where kind = 'late'), 0)::bigint,
           count(*)
    from ledger where id > %(after)s and id <= %(upto)s
"""
CARRIED: Final = """
    select coalesce(sum(borrowed_tokens), 0)::bigint, coalesce(sum(settled_tokens), 0)::bigint,
           coalesce(sum(returned_tokens), 0)::bigint, coalesce(sum(late_tokens), 0)::bigint,
           coalesce(sum(borrowed_images), 0)::bigint, coalesce(sum(settled_images), 0)::bigint,
           coalesce(sum(returned_images), 0)::bigint, coalesce(sum(late_images), 0)::bigint,
           coalesce(sum(rows), 0)::bigint
    from ledger_carried where subject = account_id
"""
"""`TOTALS` of the rows that were removed."""
NOTES: Final[dict[str, LiteralString]] = {
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
