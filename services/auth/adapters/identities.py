"""Who a key belongs to, read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from moa.quota.v1 import quota_pb2
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.accounts import UNLIMITED, Held, Identity
from services.common.errors import NotFound
from services.common.isolate import note_failure
from services.quota_client import priorities

# The zone changes at the end of a day, so that no day's quota is given twice.
_SELECT = """
with found as (
    select k.id as key_id, k.digest, k.scopes, k.expires_at, k.tokens_a_day as key_tokens, k.images_a_day as key_images,
           k.requests_a_minute as key_requests_a_minute, k.concurrent_requests as key_concurrent_requests,
           a.priority, k.priority as key_priority, k.manages, k.counts_as, k.bound_by,
           m.tokens_a_day as bound_tokens, m.images_a_day as bound_images,
           m.requests_a_minute as bound_requests_a_minute, m.concurrent_requests as bound_concurrent_requests,
           k.revoked_at is not null or a.disabled_at is not null or coalesce(k.expires_at <= now(), false) as ended,
           a.id as account_id, a.unlimited, a.tokens_a_day, a.images_a_day, a.requests_a_minute, a.concurrent_requests,
           a.micro_credits,
           case when (now() at time zone a.zone)::date >= a.next_zone_day then a.next_zone else a.zone end as zone
    from keys k join accounts a on a.id = k.account_id left join keys m on m.id = k.bound_by
    where {condition}
), dated as (
    select *, (now() at time zone zone)::date as day from found
)
select d.account_id, d.key_id, d.digest, d.ended, d.expires_at, d.unlimited, d.scopes, d.day,
       (d.day + 1)::timestamp at time zone d.zone as resets_at,
       d.tokens_a_day, d.images_a_day, coalesce(qa.tokens, 0), coalesce(qa.images, 0),
       d.key_tokens, d.key_images, coalesce(qk.tokens, 0), coalesce(qk.images, 0),
       d.requests_a_minute, d.concurrent_requests, d.key_requests_a_minute, d.key_concurrent_requests,
       d.priority, d.key_priority, d.micro_credits, d.manages, d.counts_as, d.bound_by,
       d.bound_tokens, d.bound_images, coalesce(qb.tokens, 0), coalesce(qb.images, 0),
       d.bound_requests_a_minute, d.bound_concurrent_requests,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'provider', r.provider, 'model', r.model, 'operations', r.operations) order by r.id), '[]')
        from rules r where r.account_id = d.account_id)
from dated d
left join quota_days qa on qa.subject = d.account_id and qa.day = d.day
left join quota_days qk on qk.subject = coalesce(d.counts_as, d.key_id) and qk.day = d.day
left join quota_days qb on qb.subject = d.bound_by and qb.day = d.day
"""
_TODAY = """
with found as (
    select *, case when (now() at time zone zone)::date >= next_zone_day then next_zone else zone end as now_zone
    from accounts a where a.id = %s
), dated as (
    select *, (now() at time zone now_zone)::date as day from found
)
select d.unlimited, d.tokens_a_day, d.images_a_day,
       coalesce(b.tokens, 0)::bigint + coalesce(l.tokens, 0)::bigint,
       coalesce(b.images, 0)::bigint + coalesce(l.images, 0)::bigint,
       (d.day + 1)::timestamp at time zone d.now_zone
from dated d,
     lateral (select sum(settled_tokens) as tokens, sum(settled_images) as images from blocks
              where account_id = d.id and day = d.day) b,
     lateral (select sum(tokens) as tokens, sum(images) as images from ledger
              where account_id = d.id and day = d.day and kind = 'late') l
"""
_BY_DIGEST = _SELECT.format(condition="k.digest = %s")
_BY_ID = _SELECT.format(condition="k.id = any(%s)")


class Identities:
    """Reads keys with their accounts."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def by_digest(self, digest: bytes) -> Identity | None:
        """Find the key with this digest."""
        async with self._postgres.transaction() as link:
            found = await _read(link, _BY_DIGEST, digest)
        return found[0] if found else None

    async def by_ids(self, key_ids: Sequence[str]) -> list[Identity]:
        """Find keys; those that are not there are left out."""
        async with self._postgres.transaction() as link:
            return await _read(link, _BY_ID, list(key_ids))

    async def today(self, account_id: str) -> tuple[Held, datetime]:
        """Return what an account has spent of its day, and when that ends. Raises NotFound."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(_TODAY, (account_id,))
            row = await cursor.fetchone()
        if row is None:
            raise NotFound("no such account")
        unlimited, tokens, images, taken_tokens, taken_images, resets_at = row
        held = Held(
            limit_tokens=UNLIMITED if unlimited else tokens,
            limit_images=UNLIMITED if unlimited else images,
            taken_tokens=taken_tokens,
            taken_images=taken_images,
        )
        return held, resets_at


async def _read(link: Link, statement: str, parameter: object) -> list[Identity]:
    cursor = await link.execute(statement, (parameter,))
    found = []
    for row in await cursor.fetchall():
        try:
            found.append(_identity(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # A key whose rules cannot be read is refused; the others that were asked for with it are not.
            note_failure("identity", row[1], error)
    return found


def _identity(row: tuple[Any, ...]) -> Identity:
    (account_id, key_id, digest, ended, expires_at, unlimited, scopes, day, resets_at) = row[:9]
    (tokens, images, taken_tokens, taken_images, key_tokens, key_images, key_taken_tokens, key_taken_images) = row[9:17]
    (requests_a_minute, concurrent_requests, key_requests_a_minute, key_concurrent_requests) = row[17:21]
    (priority, key_priority, micro_credits, manages, counts_as, bound_by) = row[21:27]
    (bound_tokens, bound_images, bound_taken_tokens, bound_taken_images) = row[27:31]
    (bound_requests_a_minute, bound_concurrent_requests, rules) = row[31:]
    return Identity(
        account_id=account_id,
        key_id=key_id,
        digest=digest,
        ended=ended,
        expires_at=expires_at,
        rules=tuple(rule_of(rule) for rule in rules),
        scopes=tuple(rule_of(rule) for rule in scopes),
        unlimited=unlimited,
        day=day,
        resets_at=resets_at,
        account=Held(
            limit_tokens=UNLIMITED if unlimited else tokens,
            limit_images=UNLIMITED if unlimited else images,
            taken_tokens=taken_tokens,
            taken_images=taken_images,
        ),
        key=_held(key_tokens, key_images, key_taken_tokens, key_taken_images),
        bound=_held(bound_tokens, bound_images, bound_taken_tokens, bound_taken_images),
        manages=frozenset(manages),
        counts_as=counts_as or "",
        bound_by=bound_by or "",
        pace=quota_pb2.Pace(requests_per_minute=requests_a_minute, concurrent_requests=concurrent_requests),
        key_pace=_pace(key_requests_a_minute, key_concurrent_requests),
        bound_pace=_pace(bound_requests_a_minute, bound_concurrent_requests),
        priority=priorities.lower(priority, key_priority),
        micro_credits=micro_credits,
    )


def _held(tokens: int | None, images: int | None, taken_tokens: int, taken_images: int) -> Held | None:
    if tokens is None and images is None:
        return None
    return Held(
        limit_tokens=UNLIMITED if tokens is None else tokens,
        limit_images=UNLIMITED if images is None else images,
        taken_tokens=taken_tokens,
        taken_images=taken_images,
    )


def _pace(requests_a_minute: int | None, concurrent_requests: int | None) -> quota_pb2.Pace | None:
    if not requests_a_minute and not concurrent_requests:
        return None
    return quota_pb2.Pace(requests_per_minute=requests_a_minute or 0, concurrent_requests=concurrent_requests or 0)


def rule_of(stored: dict[str, Any]) -> quota_pb2.Rule:
    """Return a rule as it is stored in JSON."""
    return quota_pb2.Rule(provider=stored["provider"], model=stored["model"], operations=stored.get("operations") or ())
