"""Who a key belongs to, read from PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from moa.quota.v1 import quota_pb2
from services.auth.adapters.columns import COLUMNS, each, zone_of
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.accounts import PACES, Budget, Owner, Standing, VerifiedKey
from services.auth.domain.request_log import Wanted, logging_of
from services.common.errors import NotFound
from services.common.isolate import note_failure
from services.quota_client import priorities
from services.quota_client.amounts import GRANTED, LIMITS, Amount, Period

_LIMITS: Final = (*LIMITS, *PACES)


def _limits(table: str) -> str:
    return ", ".join(f"{table}.{name}" for name in _LIMITS)


_PERIODS = """
       (select jsonb_object_agg(p.period, extract(epoch from p.ends::timestamp at time zone d.zone))
        from periods_of(d.day) p where p.ends is not null)
"""
_SELECT = f"""
with found as (
    select k.id as key_id, k.digest, k.scopes, k.expires_at, k.priority as key_priority, k.manages,
           coalesce(k.counts_as, k.id) as counter, k.bound_by,
           k.revoked_at is not null or a.disabled_at is not null or coalesce(k.expires_at <= now(), false) as ended,
           a.disabled_at is not null and k.revoked_at is null and coalesce(k.expires_at > now(), true) as disabled,
           a.id as account_id, a.unlimited, a.priority, a.micro_credits, a.stores_responses, {zone_of("a")} as zone,
           array[{_limits("a")}] as account_limits, array[{_limits("k")}] as key_limits,
           array[{_limits("m")}] as maker_limits,
           t.id as team_id, t.name as team_name, t.rules as team_rules, array[{_limits("t")}] as team_limits,
           t.log_requests, t.log_content
    from keys k join accounts a on a.id = k.account_id left join keys m on m.id = k.bound_by
         left join teams t on t.id = a.team_id
    where {{condition}}
), dated as (
    select f.*, (now() at time zone zone)::date as day,
           -- In one order, whoever reads them.
           (select array_agg(b.id order by b.id) from budgets b where b.deleted_at is null
            and (b.team_id is null or b.team_id = f.team_id)
            and b.owner in ('', f.account_id, f.counter, f.bound_by, f.team_id)) as budget_ids
    from found f
)
select d.account_id, d.key_id, d.digest, d.ended, d.disabled, d.expires_at, d.unlimited, d.scopes, d.day,
       d.priority, d.key_priority, d.micro_credits, d.manages, d.counter, d.bound_by,
       d.account_limits, d.key_limits, d.maker_limits, d.team_id, d.team_name, d.team_rules, d.team_limits,
       d.stores_responses, d.log_requests, d.log_content,
       {_PERIODS},
       (select jsonb_agg(jsonb_build_array(c.subject, c.period, {COLUMNS}))
        from quota_counters c join periods_of(d.day) p using (period, starts)
        where c.subject = any (array[d.account_id, d.counter, d.bound_by, d.team_id] || d.budget_ids)),
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'provider', r.provider, 'model', r.model, 'operations', r.operations) order by r.id), '[]')
        from rules r where r.account_id = d.account_id),
       case when d.budget_ids is not null then (
            select jsonb_agg(jsonb_build_array(
                b.id, b.name, b.owner, b.provider, b.model, b.tag, {_limits("b")}) order by b.id)
            from budgets b where b.id = any (d.budget_ids)) end
from dated d
"""
# What blocks hold and nobody has spent is free, for whoever looks.
_SPENT = f"""
with found as (
    select s.subject, s.key_id, a.id as account_id, {zone_of("a")} as zone
    from accounts a cross join lateral (
        select a.id as subject, null as key_id union all
        select coalesce(k.counts_as, k.id), k.id from keys k where k.id = any(%(keys)s) and k.account_id = a.id
    ) s where a.id = %(account)s
), dated as (
    select *, (now() at time zone zone)::date as day from found
)
select d.subject, p.period, p.ends::timestamp at time zone d.zone, {each("coalesce(c.{}, 0) - coalesce(b.{}, 0)")}
from dated d cross join periods_of(d.day) p
     left join quota_counters c on c.subject = d.subject and c.period = p.period and c.starts = p.starts,
     lateral (select {each("sum({} - settled_{} - returned_{})::bigint as {}")} from blocks
              where closed_at is null and account_id = d.account_id
              and day >= p.starts and (p.ends is null or day < p.ends)
              and (d.key_id is null or d.subject = any(coalesce(counts_as, array[key_id])))) b
order by 1, 2
"""
_BY_DIGEST = _SELECT.format(condition="k.digest = %s")
_BY_ID = _SELECT.format(condition="k.id = any(%s)")


class VerifiedKeys:
    """Reads keys with their accounts."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def by_digest(self, digest: bytes) -> VerifiedKey | None:
        """Find the key with this digest."""
        async with self._postgres.transaction() as link:
            found = await _read(link, _BY_DIGEST, digest)
        return found[0] if found else None

    async def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        """Find keys; those that are not there are left out."""
        async with self._postgres.transaction() as link:
            return await _read(link, _BY_ID, list(key_ids))

    async def spent(
        self, account_id: str, key_ids: Sequence[str] = ()
    ) -> dict[str, dict[Period, tuple[Amount, datetime | None]]]:
        """Return what an account, and each of its keys, has spent of each period of today, and when that ends."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(_SPENT, {"account": account_id, "keys": list(key_ids)})
            found: dict[str, dict[Period, tuple[Amount, datetime | None]]] = defaultdict(dict)
            for subject, period, ends, *amounts in await cursor.fetchall():
                found[subject][Period(period)] = Amount(*amounts), ends
        if not found:
            raise NotFound("no such account")
        return found


async def _read(link: Link, statement: str, parameter: object) -> list[VerifiedKey]:
    cursor = await link.execute(statement, (parameter,))
    found = []
    for row in await cursor.fetchall():
        try:
            found.append(_verified_key(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # A key whose rules cannot be read is refused; the others that were asked for with it are not.
            note_failure("verified_key", row[1], error)
    return found


def _verified_key(row: tuple[Any, ...]) -> VerifiedKey:
    (account_id, key_id, digest, ended, disabled, expires_at, unlimited, scopes, day) = row[:9]
    (priority, key_priority, micro_credits, manages, counter, bound_by) = row[9:15]
    (account_limits, key_limits, maker_limits, team_id, team_name, team_rules, team_limits) = row[15:22]
    (stores_responses, log_requests, log_content, ends, counted, rules, budgets) = row[22:]
    taken: dict[str, dict[Period, Amount]] = defaultdict(dict)
    for subject, period, *amounts in counted or ():
        taken[subject][Period(period)] = Amount(*amounts)
    by_name, of_key, of_maker, of_team = (
        dict(zip(_LIMITS, limits, strict=True)) for limits in (account_limits, key_limits, maker_limits, team_limits)
    )
    of_account = (dict.fromkeys(_LIMITS) if unlimited else by_name) | {GRANTED: micro_credits}
    standings = [
        Standing.of(Owner.ACCOUNT, account_id, of_account, taken[account_id]),
        Standing.of(Owner.KEY, counter, of_key, taken[counter]),
    ]
    if bound_by:
        standings.append(Standing.of(Owner.MAKER, bound_by, of_maker, taken[bound_by]))
    if team_id:
        standings.append(Standing.of(Owner.TEAM, team_id, of_team, taken[team_id], team_name))
    whose = {
        "": "everybody",
        account_id: "this account",
        counter: "this key",
        bound_by: "this key's maker",
        team_id: f"team {team_name}",
    }
    resets = {Period(period): datetime.fromtimestamp(float(at), UTC) for period, at in ends.items()}
    return VerifiedKey(
        account_id=account_id,
        key_id=key_id,
        digest=digest,
        ended=ended,
        disabled=disabled,
        expires_at=expires_at,
        rules=tuple(rule_of(rule) for rule in (*rules, *(team_rules or ()))),
        scopes=tuple(rule_of(rule) for rule in scopes),
        unlimited=unlimited,
        day=day,
        resets_at=resets[Period.DAY],
        ends=resets,
        standings=tuple(standings),
        manages=frozenset(manages),
        counts_as=counter,
        bound_by=bound_by or "",
        pace=_pace(by_name) or quota_pb2.Pace(),
        key_pace=_pace(of_key),
        bound_pace=_pace(of_maker),
        priority=priorities.lower(priority, key_priority),
        micro_credits=micro_credits,
        stores_responses=stores_responses,
        team_id=team_id or "",
        team_pace=_pace(of_team),
        budgets=tuple(_budget(budget, taken, whose) for budget in budgets or ()),
        request_logging=logging_of(Wanted(bool(log_requests), bool(log_content))),
    )


def _budget(stored: list[Any], taken: dict[str, dict[Period, Amount]], whose: dict[str | None, str]) -> Budget:
    budget_id, name, owner, provider, model, tag, *limits = stored
    by_name = dict(zip(_LIMITS, limits, strict=True))
    standing = Standing.of(Owner.BUDGET, budget_id, by_name, taken[budget_id], f"{name} of {whose[owner]}".lstrip())
    return Budget(provider=provider, model=model, tag=tag, standing=standing, pace=_pace(by_name))


def _pace(limits: dict[str, int | None]) -> quota_pb2.Pace | None:
    paces = {name.replace("_a_minute", "_per_minute"): limit for name in PACES if (limit := limits[name])}
    return quota_pb2.Pace(**paces) if paces else None


def rule_of(stored: dict[str, Any]) -> quota_pb2.Rule:
    """Return a rule as it is stored in JSON."""
    return quota_pb2.Rule(provider=stored["provider"], model=stored["model"], operations=stored.get("operations") or ())
