"""Sessions and invitations in PostgreSQL: both are random tokens, stored as digests."""

from __future__ import annotations

from datetime import datetime

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Postgres

_IDLE = "1 hour"
_AT_MOST = "12 hours"


class Sessions:
    """Keeps sessions: each ends an hour after its last use, and after twelve hours."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def begin(self, account_id: str, digest: bytes) -> datetime:
        """Begin a session; give when it ends if it is not used. Ended ones are swept away."""
        async with self._postgres.transaction() as link:
            await link.execute("delete from sessions where expires_at < now()")
            cursor = await link.execute(
                "insert into sessions (digest, account_id, expires_at) values (%s, %s, now() + %s::interval)"
                " returning expires_at",
                (digest, account_id, _IDLE),
            )
            row = await cursor.fetchone()
        assert row is not None
        ends: datetime = row[0]
        return ends

    async def account_of(self, digest: bytes) -> str | None:
        """Return the account of a live session, and let the session live on."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update sessions s set expires_at = least(now() + %s::interval, s.created_at + %s::interval)"
                " from accounts a where s.digest = %s and s.expires_at > now() and a.id = s.account_id"
                " and a.disabled_at is null returning s.account_id",
                (_IDLE, _AT_MOST, digest),
            )
            row = await cursor.fetchone()
        return str(row[0]) if row else None

    async def pace_of(self, account_id: str) -> tuple[int, int]:
        """Return how many requests a minute an account may begin, and tokens use; 0: any number."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select requests_a_minute, tokens_a_minute from accounts where id = %s", (account_id,)
            )
            row = await cursor.fetchone()
        return (int(row[0] or 0), int(row[1] or 0)) if row else (0, 0)

    async def end(self, digest: bytes) -> None:
        """End a session."""
        async with self._postgres.transaction() as link:
            await link.execute("delete from sessions where digest = %s", (digest,))

    async def invite(self, digest: bytes, *, expires_in_s: float, actor: str) -> datetime:
        """Make an invitation; give when it ends."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "insert into invitations (digest, made_by, expires_at)"
                " values (%s, %s, now() + make_interval(secs => %s)) returning expires_at",
                (digest, actor, expires_in_s),
            )
            row = await cursor.fetchone()
            await audit(link, actor, "invitation.made", "", f"expires_in_s={expires_in_s:g}")
        assert row is not None
        ends: datetime = row[0]
        return ends
