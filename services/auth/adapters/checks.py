"""What the ledger's checker asks the database: each statement gives the rows at which the books do not balance."""

from __future__ import annotations

from typing import Final, LiteralString

from services.auth.adapters.columns import COLUMNS, each

_MOVED: Final = each(
    "case when kind in ('borrow', 'grow', 'late') then l.{}"
    " when kind in ('return', 'expire') then -l.{} else 0 end as {}"
)
_BLOCKS: Final = f"""
    select b.id::text as block, b.account_id, b.day::text,
           {each("b.{} - coalesce(l.borrowed_{}, 0) as borrowed_{}_off")},
           {each("b.settled_{} - coalesce(l.settled_{}, 0) as settled_{}_off")},
           {each("b.returned_{} - coalesce(l.returned_{}, 0) as returned_{}_off")}
    from blocks b left join (
        select block_id,
               {each("sum({}) filter (where kind in ('borrow', 'grow')) as borrowed_{}")},
               {each("sum({}) filter (where kind in ('settle', 'orphan')) as settled_{}")},
               {each("sum({}) filter (where kind in ('return', 'expire')) as returned_{}")}
        from ledger where {{ledger}} group by block_id
    ) l on l.block_id = b.id
    where {{blocks}} and ({each("b.{}, b.settled_{}, b.returned_{}")}) is distinct from
          ({each("coalesce(l.borrowed_{}, 0), coalesce(l.settled_{}, 0), coalesce(l.returned_{}, 0)")})
"""
_DAYS: Final = f"""
    with moved as (
        select account_id as subject, day, {_MOVED} from ledger l where {{ledger}}
        union all
        -- An id that once stood for an account and its key is one subject, counted once.
        select c.subject, l.day, {_MOVED}
        from ledger l left join blocks b on b.id = l.block_id,
             unnest(coalesce(b.counts_as, array[l.key_id])) as c (subject)
        where {{ledger}} and c.subject <> l.account_id
        union all
        select subject, day, {each("borrowed_{} - returned_{} + late_{}")} from ledger_carried l where {{carried}}
    ), summed as (select subject, day, {each("sum({}) as {}")} from moved group by 1, 2),
    counted as (select subject, starts as day, {COLUMNS} from quota_counters where period = 'day')
    select coalesce(q.subject, s.subject) as subject, coalesce(q.day, s.day)::text as day,
           {each("coalesce(q.{}, 0) - coalesce(s.{}, 0) as {}_off")}
    from counted q {{join}} join summed s using (subject, day)
    where {each("coalesce(q.{}, 0) <> coalesce(s.{}, 0)", " or ")}
"""
_ENDED: Final = f"""
    select b.id::text as block, account_id, day::text, {each("{} - settled_{} - returned_{} as {}")}
    from blocks b where {{blocks}} and closed_at is not null and ({each("{} <> settled_{} + returned_{}", " or ")})
"""
_TWICE: Final = """
    select reference as reservation, count(*) from ledger where kind in ('settle', 'orphan', 'late') and {references}
    group by reference having count(*) filter (where kind = 'settle') > 0 and count(*) > 1
"""
_BEYOND: Final = f"""
    with charged as (
        select reference, {each("sum(case when kind = 'grow' then -{} else {} end)::bigint as {}")},
               {each("max(reserved_{}) as reserved_{}")}
        from ledger where kind in ('settle', 'orphan', 'grow') and {{references}} group by reference
    )
    select reference as reservation, {COLUMNS} from charged where {each("{} > reserved_{}", " or ")}
"""
_BOOKED: Final = f"""charged as (
        select account_id, day, {COLUMNS} from ledger l where kind in ('settle', 'orphan', 'late') and {{days}}
        union all
        select account_id, day, {each("settled_{} + late_{}")} from ledger_carried l
        where subject = account_id and {{days}}
    ), booked as (
        select account_id, day, {each("sum({}) as {}")} from charged group by 1, 2
    )"""
"""What an account was charged each day, by the ledger and the sums of rows that it no longer has."""
_USAGE: Final = f"""
    with {_BOOKED}, told as (
        select account_id, day, {each("sum(charged_{}) as {}")} from usage_days l where {{days}} group by 1, 2
    )
    select account_id as account, day::text, {each("coalesce(t.{}, 0) - coalesce(b.{}, 0) as {}_off")}
    from booked b full join told t using (account_id, day)
    where {each("coalesce(t.{}, 0) <> coalesce(b.{}, 0)", " or ")}
"""
_SPEND: Final = f"""
    with {_BOOKED}, told as (
        select account_id, day, {each("sum({}) as {}")} from (
            select value as account_id, starts as day, {each("charged_{} as {}")} from spend
            where scope = '' and grouping = 'account' and period = 'day'
        ) l where {{days}} group by 1, 2
    )
    select account_id as account, day::text, {each("coalesce(t.{}, 0) - coalesce(b.{}, 0) as {}_off")}
    from booked b full join told t using (account_id, day)
    where {each("coalesce(t.{}, 0) <> coalesce(b.{}, 0)", " or ")}
"""
_SPEND_GROUPINGS: Final = f"""
    with summed as (
        select scope, grouping, date_trunc('month', starts)::date as month, period, {each("sum(charged_{}) as {}")}
        from spend where grouping <> 'tag' group by 1, 2, 3, 4
    )
    select s.scope, s.grouping, s.period, s.month::text, {each("s.{} - coalesce(d.{}, 0) as {}_off")}
    from summed s left join summed d
        on d.scope = s.scope and d.grouping = 'dialect' and d.period = 'day' and d.month = s.month
    where {each("s.{} <> coalesce(d.{}, 0)", " or ")}
"""
_STATEMENTS: Final = {
    "a block's counters differ from the ledger": _BLOCKS,
    "a day's counter differs from the ledger": _DAYS,
    "a block ended with something outstanding": _ENDED,
    "a day's usage differs from the ledger": _USAGE,
    "a day's spending differs from the ledger": _SPEND,
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
TOUCHED: Final[tuple[LiteralString, ...]] = (
    f"create temp table touched_blocks on commit drop as select distinct block_id from ledger where {_RANGE}",
    f"create temp table touched_days on commit drop as select distinct account_id, day from ledger where {_RANGE}",
    f"create temp table touched_references on commit drop as select distinct reference from ledger where {_RANGE}",
    "analyze touched_blocks, touched_days, touched_references",
)
"""What `OF_ROWS` reads, made before it in its transaction. Without their numbers the planner reads the whole ledger."""
_TOUCHED: Final = "in (select block_id from touched_blocks)"
_TOUCHED_DAYS: Final = "(l.account_id, l.day) in (select account_id, day from touched_days)"

WHOLE: Final[dict[str, LiteralString]] = {
    **{name: text.format(**_WHOLE) for name, text in _STATEMENTS.items()},
    "sums of spending differ by what they are grouped by": _SPEND_GROUPINGS,
}
"""Of everything, counters that no row of the ledger has to do with included."""
OF_ROWS: Final[dict[str, LiteralString]] = {
    name: text.format(
        # All of a block, all of an account's day: what a row moved must agree with what all others moved.
        ledger=_TOUCHED_DAYS if text is _DAYS else f"block_id {_TOUCHED}",
        carried=_TOUCHED_DAYS,
        days=_TOUCHED_DAYS,
        blocks=f"b.id {_TOUCHED}",
        references="reference in (select reference from touched_references)",
        join="right",
    )
    for name, text in _STATEMENTS.items()
}
"""Of what the rows have to do with that `TOUCHED` was made of: those after `after`, up to `upto`."""
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
    "a counter differs from the sum of its days": f"""
        with summed as (
            select d.subject, p.period, p.starts, {each("sum(d.{}) as {}")}
            from quota_counters d, periods_of(d.starts) p where d.period = 'day' group by 1, 2, 3
        )
        select subject, period, starts::text, {each("coalesce(c.{}, 0) - coalesce(s.{}, 0) as {}_off")}
        from quota_counters c full join summed s using (subject, period, starts)
        where {each("coalesce(c.{}, 0) <> coalesce(s.{}, 0)", " or ")}
    """,
    "credits granted differ from their entries": """
        select a.id as account, a.micro_credits - coalesce(c.micro_credits, 0) as micro_credits_off
        from accounts a left join (select account_id, sum(micro_credits) as micro_credits from credits group by 1) c
        on c.account_id = a.id where a.micro_credits <> coalesce(c.micro_credits, 0)
    """,
}
"""Of what is open, and of what is not in the ledger."""

TOTALS: Final = f"""
    select count(*),
           {each("coalesce(sum({}) filter (where kind in ('borrow', 'grow')), 0)::bigint")},
           {each("coalesce(sum({}) filter (where kind in ('settle', 'orphan')), 0)::bigint")},
           {each("coalesce(sum({}) filter (where kind in ('return', 'expire')), 0)::bigint")},
           {each("coalesce(sum({}) filter (where kind = 'late'), 0)::bigint")}
    from ledger where id > %(after)s and id <= %(upto)s
"""
"""How many rows there are, and what they borrowed, settled, returned and charged late, by dimension."""
CARRIED: Final = f"""
    select coalesce(sum(rows), 0)::bigint,
           {each("coalesce(sum(borrowed_{}), 0)::bigint")}, {each("coalesce(sum(settled_{}), 0)::bigint")},
           {each("coalesce(sum(returned_{}), 0)::bigint")}, {each("coalesce(sum(late_{}), 0)::bigint")}
    from ledger_carried where subject = account_id
"""
"""`TOTALS` of the rows that were removed."""
NOTES: Final[dict[str, LiteralString]] = {
    # Charged as last reported, because their holder vanished. A `late` row corrects one that was settled after all.
    "orphans": f"""
        select o.at::text, o.reference as reservation, o.account_id, o.key_id, o.day::text, o.provider, o.model,
               o.request_id, {each("o.{}, l.{} as corrected_{}")}
        from ledger o left join ledger l on l.reference = o.reference and l.kind = 'late'
        where o.kind = 'orphan' order by o.id desc limit %s
    """,
    # Consumed and not charged: beyond what was reserved, or settled when the day had no room left.
    "uncovered": f"""
        select at::text, kind, reference as reservation, account_id, day::text, provider, model, request_id,
               {each("uncovered_{}")}
        from ledger where {each("uncovered_{} > 0", " or ")} order by id desc limit %s
    """,
}
