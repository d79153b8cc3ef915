"""Tries in PostgreSQL, so that guessing is slowed by all replicas together."""

from __future__ import annotations

import contextlib
import hashlib
import hmac

from services.auth.adapters.postgres import Postgres
from services.common.errors import RateLimited, Unavailable
from services.common.throttle import Throttle


class Tries:
    """Allows `tries` at once for each name, and again one every `every_s` seconds, over all replicas.

    Args:
        pepper: What names are digested with.
        kind: What is tried; names of different kinds have nothing to do with each other.
    """

    def __init__(self, postgres: Postgres, *, pepper: bytes, kind: str, tries: int, every_s: float) -> None:
        self._postgres = postgres
        self._secret = hmac.digest(pepper, f"tries {kind}".encode(), hashlib.sha256)
        self._tries = tries
        self._every_s = every_s
        # Whom this replica alone knows to have to wait costs no query; and it counts while the database is away.
        self._own = Throttle(tries=tries, every_s=every_s)

    async def check(self, name: str) -> None:
        """Count a try. Raises RateLimited with the time until the next."""
        self._own.check(name)
        try:
            wait_s = await self._counted(name)
        except Unavailable:
            return
        if wait_s > 0:
            raise RateLimited("too many wrong tries; wait as long as Retry-After says", retry_after_s=wait_s)

    async def count(self, name: str) -> None:
        """Count a try that has been made, if there was one left."""
        with contextlib.suppress(Unavailable, RateLimited):
            await self.check(name)

    async def spent(self, name: str) -> bool:
        """Return whether a name has no try left now; counts nothing. False while the database is away."""
        try:
            async with self._postgres.transaction() as link:
                cursor = await link.execute(
                    "select full_at > now() + make_interval(secs => %s) from tries where name = %s",
                    ((self._tries - 1) * self._every_s, self._digest(name)),
                )
                row = await cursor.fetchone()
        except Unavailable:
            return False
        return bool(row and row[0])

    async def forgive(self, name: str) -> None:
        """Give a name all its tries back."""
        self._own.forgive(name)
        async with self._postgres.transaction() as link:
            await link.execute("delete from tries where name = %s", (self._digest(name),))

    async def _counted(self, name: str) -> float:
        """Count a try and give 0; or give the seconds until there is one, and count nothing."""
        digest = self._digest(name)
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "insert into tries as t (name, full_at) values (%(name)s, now() + make_interval(secs => %(every)s))"
                " on conflict (name) do update"
                " set full_at = greatest(t.full_at, now()) + make_interval(secs => %(every)s)"
                " where greatest(t.full_at, now()) + make_interval(secs => %(every)s)"
                " <= now() + make_interval(secs => %(all)s) returning 1",
                {"name": digest, "every": self._every_s, "all": self._tries * self._every_s},
            )
            if await cursor.fetchone() is not None:
                return 0.0
            cursor = await link.execute(
                "select extract(epoch from full_at - now())::float8 from tries where name = %s", (digest,)
            )
            row = await cursor.fetchone()
        return max(0.1, float(row[0]) - (self._tries - 1) * self._every_s) if row else 0.0

    def _digest(self, name: str) -> bytes:
        return hmac.digest(self._secret, name.encode("utf-8", "surrogatepass"), hashlib.sha256)


async def tidy(postgres: Postgres) -> None:
    """Forget those who have all their tries again."""
    async with postgres.transaction() as link:
        await link.execute("delete from tries where full_at < now()")
