"""Links by which somebody who forgot a password sets another, in PostgreSQL."""

from __future__ import annotations

from typing import Final

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Postgres

LASTS_S: Final = 1800


class Resets:
    """Keeps one link an account, for half an hour; it counts once."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def begin(self, email: str, digest: bytes) -> bool:
        """Make a link for the account of an email, in the place of one before; return whether there is one."""
        async with self._postgres.transaction() as link:
            await link.execute("delete from password_resets where expires_at < now()")
            cursor = await link.execute(
                "insert into password_resets (account_id, digest, expires_at)"
                " select id, %s, now() + make_interval(secs => %s) from accounts"
                " where email = %s and disabled_at is null"
                " on conflict (account_id) do update set digest = excluded.digest, expires_at = excluded.expires_at"
                " returning account_id",
                (digest, LASTS_S, email),
            )
            row = await cursor.fetchone()
            if row is not None:
                await audit(link, row[0], "password_reset.asked", row[0])
        return row is not None

    async def use(self, digest: bytes, password_hash: str) -> bool:
        """Set the password of the link's account, and end its sessions; return whether the link was good."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "delete from password_resets r using accounts a where r.digest = %s and r.expires_at > now()"
                " and a.id = r.account_id and a.disabled_at is null returning r.account_id",
                (digest,),
            )
            row = await cursor.fetchone()
            if row is None:
                return False
            await link.execute("update accounts set password_hash = %s where id = %s", (password_hash, row[0]))
            await link.execute("delete from sessions where account_id = %s", (row[0],))
            await audit(link, row[0], "password.reset", row[0])
        return True
