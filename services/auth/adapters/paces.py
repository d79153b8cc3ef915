"""Paces in PostgreSQL: one row an account or key that has one, locked while it is divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from moa.quota.v1 import quota_pb2
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.paces import Bucket, Counted, Given, Limit, Minute, refilled, share


class Left(NamedTuple):
    """What was left of a minute, and how long ago that was."""

    amount: float
    ago_s: float


class PacesKept:
    """Keeps paces. A crash of the database forgets them, but for images and dollars: of those never more is used."""

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
                )
                for name, amount, left in zip(Minute._fields, given.minute, given.minute_left, strict=True):
                    setattr(told, name, amount)
                    setattr(told, f"free_{name}", max(0, int(left)))
                told.wait.FromMilliseconds(int(given.wait_s * 1000))
                told.expires_in.FromMilliseconds(int(ttl_s * 1000))
                shares.append(told)
        return shares

    async def left(self, subjects: Sequence[str]) -> dict[tuple[str, str], Left]:
        """Return how much was left of each limit over a minute, by subject and the limit's name, and how long ago.

        What nobody used lately is not there. What routers hold for requests to come counts as used.
        """
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select p.subject, a.name, a.amount, extract(epoch from clock_timestamp() - p.at)::float8"
                " from (select subject, starts, tokens, null::float8 as images, null::float8 as nano_usd, at from paces"
                " union all select subject, null, null, images, nano_usd, at from pace_amounts) p cross join lateral"
                " (values ('requests_a_minute', p.starts), ('tokens_a_minute', p.tokens),"
                " ('images_a_minute', p.images), ('nano_usd_a_minute', p.nano_usd)) a (name, amount)"
                " where p.subject = any(%(subjects)s) and a.amount is not null",
                {"subjects": list(subjects)},
            )
            return {(subject, name): Left(amount, ago_s) for subject, name, amount, ago_s in await cursor.fetchall()}

    async def tidy(self) -> None:
        """Forget who has not been heard of for long."""
        async with self._postgres.transaction() as link:
            # After a minute every bucket is full, as a new one is, but one of which more was used than was there.
            await link.execute(
                "delete from paces where at < clock_timestamp() - interval '2 minutes' and coalesce(tokens, 0) >= 0"
            )
            await link.execute(
                "delete from pace_amounts where at < clock_timestamp() - interval '2 minutes'"
                " and coalesce(images, 0) >= 0 and coalesce(nano_usd, 0) >= 0"
            )
            await link.execute("delete from pace_slots where expires_at < clock_timestamp()")


async def _bucket(link: Link, holder: str, need: quota_pb2.PaceNeed, limit: Limit) -> Bucket:
    """Lock a pace and give how it stands, with what the holder returns."""
    await link.execute(
        "insert into paces (subject, starts, at) values (%s, %s, clock_timestamp()) on conflict do nothing",
        (need.subject, limit.a_minute),
    )
    cursor = await link.execute("select starts, tokens, at from paces where subject = %s for update", (need.subject,))
    # None: tidied away between the two statements.
    starts, tokens, at = await cursor.fetchone() or (float(limit.a_minute), None, None)
    cursor = await link.execute(
        "select coalesce(sum(slots), 0)::int, count(*)::int, extract(epoch from clock_timestamp() - %s)::float8"
        " from pace_slots where subject = %s and holder <> %s and expires_at > clock_timestamp()",
        (at, need.subject, holder),
    )
    other_slots, other_holders, passed_s = await cursor.fetchone() or (0, 0, 0.0)
    counted = Counted(starts, tokens, passed_s or 0.0)
    if limit.images or limit.nano_usd:
        counted = await _exactly(link, need.subject, counted)
    starts, minute = refilled(limit, need, counted)
    return Bucket(starts, other_slots, other_holders, minute)


async def _exactly(link: Link, subject: str, counted: Counted) -> Counted:
    """Return with images and dollars, which a crash of the database does not forget; their pace's row is locked."""
    cursor = await link.execute(
        "select images, nano_usd, extract(epoch from clock_timestamp() - at)::float8 from pace_amounts"
        " where subject = %s for update",
        (subject,),
    )
    images, nano_usd, passed_s = await cursor.fetchone() or (None, None, 0.0)
    return replace(counted, images=images, nano_usd=nano_usd, exactly_s=passed_s)


async def _keep(link: Link, holder: str, need: quota_pb2.PaceNeed, limit: Limit, given: Given, ttl_s: float) -> None:
    await link.execute(
        "insert into paces (subject, starts, tokens, at) values (%s, %s, %s, clock_timestamp())"
        " on conflict (subject) do update set starts = excluded.starts,"
        " tokens = coalesce(excluded.tokens, paces.tokens), at = excluded.at",
        (need.subject, given.left, given.minute_left.tokens if limit.tokens else None),
    )
    if limit.images or limit.nano_usd:
        left = given.minute_left
        await link.execute(
            "insert into pace_amounts (subject, images, nano_usd, at) values (%s, %s, %s, clock_timestamp())"
            " on conflict (subject) do update set images = excluded.images, nano_usd = excluded.nano_usd,"
            " at = excluded.at",
            (need.subject, left.images if limit.images else None, left.nano_usd if limit.nano_usd else None),
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
