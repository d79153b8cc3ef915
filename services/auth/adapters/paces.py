"""Paces in PostgreSQL: one row an account or key that has one, locked while it is divided."""

from __future__ import annotations

from collections.abc import Sequence

from moa.quota.v1 import quota_pb2
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.paces import Bucket, Given, Limit, refilled, share


class PacesKept:
    """Keeps paces. Approximate by design: a crash of the database forgets them."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def lease(
        self, holder: str, needs: Sequence[tuple[quota_pb2.PaceNeed, Limit]], *, ttl_s: float
    ) -> list[quota_pb2.PaceShare]:
        """Return each need its share, for `ttl_s`. Raises Unavailable."""
        shares = []
        async with self._postgres.transaction() as link:
            # In one order for everybody: two holders cannot wait for each other.
            for need, limit in sorted(needs, key=lambda item: item[0].subject):
                bucket = await _bucket(link, holder, need, limit)
                given = share(limit, bucket, need)
                await _keep(link, holder, need, limit, given, ttl_s)
                told = quota_pb2.PaceShare(
                    subject=need.subject,
                    starts=given.starts,
                    slots=given.slots,
                    holders=bucket.other_holders + 1,
                    free_starts=max(0, int(given.left)),
                    tokens=given.tokens,
                    free_tokens=max(0, int(given.tokens_left)),
                )
                told.wait.FromMilliseconds(int(given.wait_s * 1000))
                told.expires_in.FromMilliseconds(int(ttl_s * 1000))
                shares.append(told)
        return shares

    async def tidy(self) -> None:
        """Forget who has not been heard of for long."""
        async with self._postgres.transaction() as link:
            # After a minute every bucket is full, as a new one is, but one of which more was used than was there.
            await link.execute(
                "delete from paces where at < clock_timestamp() - interval '2 minutes' and coalesce(tokens, 0) >= 0"
            )
            await link.execute("delete from pace_slots where expires_at < clock_timestamp()")


async def _bucket(link: Link, holder: str, need: quota_pb2.PaceNeed, limit: Limit) -> Bucket:
    """Lock a pace and give how it stands, with what the holder returns."""
    await link.execute(
        "insert into paces (subject, starts, at) values (%s, %s, clock_timestamp()) on conflict do nothing",
        (need.subject, limit.a_minute),
    )
    cursor = await link.execute("select starts, tokens, at from paces where subject = %s for update", (need.subject,))
    row = await cursor.fetchone()
    if row is None:  # tidied away between the two statements
        row = float(limit.a_minute), None, None
    starts, tokens, at = row
    cursor = await link.execute(
        "select coalesce(sum(slots), 0)::int, count(*)::int, extract(epoch from clock_timestamp() - %s)::float8"
        " from pace_slots where subject = %s and holder <> %s and expires_at > clock_timestamp()",
        (at, need.subject, holder),
    )
    other_slots, other_holders, passed_s = await cursor.fetchone() or (0, 0, 0.0)
    starts, tokens = refilled(limit, need, starts, tokens, passed_s or 0.0)
    return Bucket(starts, other_slots, other_holders, tokens)


async def _keep(link: Link, holder: str, need: quota_pb2.PaceNeed, limit: Limit, given: Given, ttl_s: float) -> None:
    await link.execute(
        "insert into paces (subject, starts, tokens, at) values (%s, %s, %s, clock_timestamp())"
        " on conflict (subject) do update set starts = excluded.starts,"
        " tokens = coalesce(excluded.tokens, paces.tokens), at = excluded.at",
        (need.subject, given.left, given.tokens_left if limit.tokens else None),
    )
    if need.running or need.starts or given.slots:
        await link.execute(
            "insert into pace_slots (subject, holder, slots, expires_at)"
            " values (%s, %s, %s, clock_timestamp() + make_interval(secs => %s)) on conflict (subject, holder)"
            " do update set slots = excluded.slots, expires_at = excluded.expires_at",
            (need.subject, holder, given.slots, ttl_s),
        )
    else:
        await link.execute("delete from pace_slots where subject = %s and holder = %s", (need.subject, holder))
