"""Sessions and invitations in PostgreSQL: both are random tokens, stored as digests."""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import class_row

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Postgres
from services.auth.domain import keys
from services.auth.domain.records import SessionRecord
from services.common.errors import NotFound
from services.common.rpc.keys import SESSION_PREFIX

_IDLE = "1 hour"
_AT_MOST = "12 hours"


class Sessions:
    """Keeps sessions: each ends an hour after its last use, and after twelve hours."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def begin(
        self, account_id: str, digest: bytes, *, address: str = "", by: str | None = None, id_token: bytes | None = None
    ) -> datetime:
        """Begin a session; give when it ends if it is not used. Ended ones are swept away.

        `by` is how somebody logged in, which is noted in the audit log; None: it is not. `id_token` is the identity
        provider's, sealed.
        """
        async with self._postgres.transaction() as link:
            await link.execute("delete from sessions where expires_at < now()")
            cursor = await link.execute(
                "insert into sessions (digest, account_id, address, id_token, expires_at)"
                " values (%s, %s, %s, %s, now() + %s::interval) returning expires_at, id",
                (digest, account_id, address[:64], id_token, _IDLE),
            )
            row = await cursor.fetchone()
            if by is not None and row is not None:
                await audit(link, account_id, "session.begun", account_id, f"session={row[1]}", f"by={by}")
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

    async def keep_key(self, digest: bytes) -> None:
        """Store the key by which a live session asks models, unless it is there: it has the session's token and end."""
        async with self._postgres.transaction() as link:
            await link.execute(
                "insert into keys (id, account_id, name, prefix, digest, expires_at, of_session)"
                " select %s, account_id, 'console', %s, digest, expires_at, true from sessions"
                " where digest = %s and expires_at > now() on conflict (digest) do nothing",
                (keys.new_id("key"), SESSION_PREFIX, digest),
            )

    async def list(self, account_id: str) -> list[SessionRecord]:
        """List an account's live sessions, the newest first."""
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(SessionRecord)) as cursor:
            await cursor.execute(
                "select id, digest, created_at, expires_at, address from sessions"
                " where account_id = %s and expires_at > now() order by created_at desc, id",
                (account_id,),
            )
            return await cursor.fetchall()

    async def end_one(self, account_id: str, session_id: str) -> None:
        """End one of an account's sessions. Raises NotFound."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "delete from sessions where account_id = %s and id = %s", (account_id, session_id)
            )
            if cursor.rowcount == 0:
                raise NotFound("no such session")
            await audit(link, account_id, "session.ended", account_id, f"session={session_id}")

    async def is_recent(self, digest: bytes, within_s: float) -> bool:
        """Return whether a session was begun within a time."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select created_at > now() - make_interval(secs => %s) from sessions where digest = %s",
                (within_s, digest),
            )
            row = await cursor.fetchone()
        return bool(row and row[0])

    async def end_others(self, account_id: str, digest: bytes) -> None:
        """End an account's sessions but one."""
        async with self._postgres.transaction() as link:
            await link.execute("delete from sessions where account_id = %s and digest <> %s", (account_id, digest))

    async def pace_of(self, account_id: str) -> tuple[int, int]:
        """Return how many requests a minute an account may begin, and tokens use; 0: any number."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select requests_a_minute, tokens_a_minute from accounts where id = %s", (account_id,)
            )
            row = await cursor.fetchone()
        return (int(row[0] or 0), int(row[1] or 0)) if row else (0, 0)

    async def end(self, digest: bytes) -> bytes | None:
        """End a session; return the identity provider's token, sealed, where it has one."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute("delete from sessions where digest = %s returning id_token", (digest,))
            row = await cursor.fetchone()
        return bytes(row[0]) if row and row[0] is not None else None

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
