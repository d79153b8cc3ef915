"""Accounts and their credits in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from moa.quota.v1 import quota_pb2
from services.auth.adapters.audit import audit
from services.auth.adapters.columns import LIMIT_COLUMNS, zone_of
from services.auth.adapters.credits import credit
from services.auth.adapters.deleting import erase
from services.auth.adapters.keys import insert_key
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.team_accounts import check_logs_in
from services.auth.domain import keys
from services.auth.domain.accounts import PACES, Limits
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.auth.domain.records import AccountRecord
from services.common.errors import Conflict, NotFound
from services.quota_client import priorities

CONSOLE: Final = "console"
"""The actor of what the command line does."""

_IS_AHEAD: LiteralString = f"case when next_zone <> zone and {zone_of()} <> next_zone then"
_COLUMNS: LiteralString = (
    f"id, email, name, role, disabled_at, unlimited, {zone_of()} as zone,"
    f" {_IS_AHEAD} next_zone end as next_zone,"
    f" {_IS_AHEAD} next_zone_day::timestamp at time zone zone end as next_zone_at,"
    f" {LIMIT_COLUMNS}, key_count, {', '.join(PACES)},"
    " priority, micro_credits, created_at, deleted_at, team_id, team_role, stores_responses, limits_before"
)
_MATCHES: LiteralString = "(id like %(like)s or email ilike %(like)s or name ilike %(like)s)"
PIECES: LiteralString = "pieces_of(id || E'\\n' || coalesce(email, '') || E'\\n' || name)"
"""What a search looks in: as the index `accounts_by_pieces` has it."""
_AFTER: LiteralString = (
    "deleted_at is null and (%(at)s::timestamptz is null or (created_at, id) < (%(at)s, %(id)s))"
    " order by created_at desc, id desc"
)
_NEWEST: Final = 500
_CREDENTIALS: Final = frozenset({"email", "password_hash"})
_PERSONAL: Final = {"email": "a new email", "name": "a new name", "password_hash": "a new password"}
"""What the audit log says of columns that hold what is of a person."""
_NO_INVITED: Final = (
    "no account can be made with this email and invitation; if you have an account already, log in, else ask an"
    " administrator for another invitation"
)
_SPENT_INVITATION: Final = (
    "this invitation is unknown, was used or taken back, or has ended; ask for another, or sign up without one"
)
_NO_SIGN_UP: Final = "no account can be made with this email and password; if you have an account already, log in"
_BOOTSTRAP_LOCK: Final = 0x6D6F6162


class Accounts:
    """Keeps accounts. What administrators do is in the audit log, in the same transaction."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def create(
        self,
        *,
        role: str,
        limits: Limits,
        rules: Sequence[quota_pb2.Rule],
        name: str = "",
        email: str | None = None,
        password_hash: str | None = None,
        unlimited: bool = False,
        priority: str = priorities.NORMAL,
        actor: str | None = None,
        invitation: bytes | None = None,
        is_open: bool = False,
        key: keys.NewKey | None = None,
    ) -> str:
        """Create an account; give its id.

        Raises Conflict when the email is taken or the invitation is not good. Which of them is not told to those who
        sign up by invitation alone: and an invitation is used up by either, so that it asks after one address only.
        Where whoever likes signs up (`is_open`) a taken email leaves the invitation as it was: it is good for joining.
        """
        account_id = keys.new_id("acc")
        async with self._postgres.transaction() as link:
            team = await _invited(link, account_id, invitation, is_open=is_open) if invitation is not None else None
            try:
                async with link.transaction():
                    await insert_account(
                        link,
                        account_id,
                        role,
                        limits,
                        rules,
                        name,
                        email,
                        password_hash,
                        unlimited=unlimited,
                        priority=priority,
                    )
            except psycopg.errors.UniqueViolation:
                if is_open:
                    raise Conflict(_NO_SIGN_UP) from None
                taken = True
            else:
                taken = False
                await self._equip(link, account_id, role, email, key=key, actor=actor, priority=priority)
                if team is not None:
                    await enter_team(link, account_id, *team)
        if taken and actor is not None:
            raise Conflict("an account with this email exists", param="email")
        if taken:
            raise Conflict(_NO_INVITED)
        return account_id

    async def _equip(
        self,
        link: Link,
        account_id: str,
        role: str,
        email: str | None,
        *,
        key: keys.NewKey | None,
        actor: str | None,
        priority: str,
    ) -> None:
        """Make a new account's first key, and note who made it."""
        if key is not None:
            await insert_key(link, account_id, key, name="first key", manages=_manages(role))
        if actor is not None:
            details = f"role={role}", f"priority={priority}", *(["with an email"] if email else [])
            await audit(link, actor, "account.created", account_id, *details)

    async def first(
        self, *, limits: Limits, rules: Sequence[quota_pb2.Rule], key: keys.NewKey, micro_credits: int
    ) -> tuple[str, str] | None:
        """Create the first administrator with a key, unless there is an administrator; give both ids.

        Where the pepper of all keys was given up, the administrator that was there first gets the key.
        """
        async with self._postgres.transaction() as link:
            await link.execute("select pg_advisory_xact_lock(%s)", (_BOOTSTRAP_LOCK,))
            cursor = await link.execute("update key_pepper set owes_key = false where owes_key returning 1")
            owed = await cursor.fetchone() is not None
            cursor = await link.execute(
                "select id from accounts where role = 'admin' order by disabled_at is not null, created_at limit 1"
            )
            if (admin := await cursor.fetchone()) is not None:
                if not owed:
                    return None
                await audit(link, CONSOLE, "key.created", admin[0], "its pepper is new")
                return admin[0], await insert_key(link, admin[0], key, name="first key", manages=_manages("admin"))
            account_id = keys.new_id("acc")
            await insert_account(
                link, account_id, "admin", limits, rules, "first administrator", None, None, unlimited=False
            )
            await credit(link, account_id, micro_credits, "first")
            await audit(link, CONSOLE, "account.created", account_id, "role=admin")
            return account_id, await insert_key(link, account_id, key, name="first key", manages=_manages("admin"))

    async def shared(
        self, account_id: str, key_id: str, *, limits: Limits, rules: Sequence[quota_pb2.Rule], digest: bytes
    ) -> None:
        """Create an account that the gateway itself acts by, with its one key, unless it is there.

        What administrators changed about it stays.
        """
        async with self._postgres.transaction() as link:
            await link.execute("select pg_advisory_xact_lock(%s)", (_BOOTSTRAP_LOCK,))
            cursor = await link.execute("select 1 from accounts where id = %s", (account_id,))
            if await cursor.fetchone():
                return
            await insert_account(link, account_id, "service", limits, rules, account_id, None, None, unlimited=True)
            await link.execute(
                "insert into keys (id, account_id, name, prefix, digest) values (%s, %s, %s, '', %s)",
                (key_id, account_id, account_id, digest),
            )
            await audit(link, CONSOLE, "account.created", account_id, "role=service")

    async def get(self, account_id: str) -> AccountRecord:
        """Return an account. Raises NotFound."""
        async with self._postgres.transaction() as link:
            return await account_of(link, account_id)

    async def password_of(self, email: str) -> tuple[str, str | None] | None:
        """Return the id and the password hash of the account that logs in with `email`, unless it is disabled."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select id, password_hash from accounts where email = %s and disabled_at is null", (email,)
            )
            row = await cursor.fetchone()
        return (row[0], row[1]) if row else None

    async def rename(self, account_id: str, name: str) -> None:
        """Change an account's name."""
        async with self._postgres.transaction() as link:
            await link.execute("update accounts set name = %s where id = %s", (name, account_id))

    async def set_storing(self, account_id: str, stores: bool | None) -> bool:
        """Have an account's responses stored, or not, or as the operator's default is; return whether that is new."""
        async with self._postgres.transaction() as link:
            changed = await link.execute(
                "update accounts set stores_responses = %s where id = %s and stores_responses is distinct from %s",
                (stores, account_id, stores),
            )
            if not changed.rowcount:
                return False
            text = "default" if stores is None else str(stores).lower()
            await audit(link, account_id, "account.changed", account_id, f"stores_responses={text}")
            return True

    async def set_password(self, account_id: str, password_hash: str, *, keep_session: bytes | None) -> None:
        """Change an account's password; every session ends but the one to keep."""
        async with self._postgres.transaction() as link:
            await link.execute("update accounts set password_hash = %s where id = %s", (password_hash, account_id))
            await link.execute(
                "delete from sessions where account_id = %s and digest is distinct from %s", (account_id, keep_session)
            )
            await audit(link, account_id, "password.changed", account_id)

    async def search(self, query: str, *, limit: int, after: tuple[datetime, str] | None) -> list[AccountRecord]:
        """List accounts that match, the newest first, after a place in that order."""
        pattern = "%" + query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        at, account_id = after or (None, None)
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(AccountRecord)) as cursor:
            given = {"query": query, "like": pattern, "at": at, "id": account_id, "limit": limit, "newest": _NEWEST}
            if query:
                # What many match is found among the newest.
                await cursor.execute(
                    f"select {_COLUMNS} from (select * from accounts where {_AFTER} limit %(newest)s) as newest"
                    f" where {_MATCHES} order by created_at desc, id desc limit %(limit)s",
                    given,
                )
                found = await cursor.fetchall()
                if len(found) == limit:
                    return found
            by_pieces = f"{PIECES} @> pieces_asked_of(%(query)s) and {_MATCHES} and" if query else ""
            await cursor.execute(f"select {_COLUMNS} from accounts where {by_pieces} {_AFTER} limit %(limit)s", given)
            return await cursor.fetchall()

    async def update(self, account_id: str, *, actor: str, **changes: object) -> AccountRecord:
        """Set columns of an account; a new address or password ends its sessions.

        Raises NotFound, or Conflict when another account has the address, or when it is the account of a team's keys
        and would log in or administrate.
        """
        async with self._postgres.transaction() as link:
            if any(map(changes.get, _CREDENTIALS)) or changes.get("role", "service") != "service":
                await check_logs_in(link, account_id)
            if _CREDENTIALS & changes.keys():
                await link.execute("delete from sessions where account_id = %s", (account_id,))
            if "role" in changes:
                await link.execute("update accounts set admin_by_groups = false where id = %s", (account_id,))
            try:
                async with link.transaction():
                    return await update_account(link, account_id, actor=actor, **changes)
            except psycopg.errors.UniqueViolation:
                raise Conflict("an account with this email exists", param="email") from None

    async def delete(self, account_id: str, *, actor: str) -> AccountRecord:
        """Erase what is of a person in an account, for good. Raises NotFound."""
        async with self._postgres.transaction() as link:
            await erase(link, account_id, actor=actor)
            return await account_of(link, account_id)

    async def disable(self, account_id: str, *, actor: str, disabled: bool = True) -> AccountRecord:
        """End all of an account's keys and sessions, or let its keys work again."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update accounts set disabled_at = case when %s then coalesce(disabled_at, now()) end where id = %s",
                (disabled, account_id),
            )
            if cursor.rowcount == 0:
                raise NotFound("no such account")
            await link.execute("delete from sessions where account_id = %s", (account_id,))
            await audit(link, actor, "account.disabled" if disabled else "account.enabled", account_id)
            return await account_of(link, account_id)

    async def knows_zone(self, zone: str) -> bool:
        """Return whether there is such a time zone."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select 1 from pg_timezone_names where name = %s", (zone,))
            return await cursor.fetchone() is not None

    async def set_zone(self, account_id: str, zone: str, *, actor: str) -> AccountRecord:
        """Count an account's days in another time zone, which there is, from its next day on. Raises NotFound."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update accounts set"
                f" zone = {zone_of()}, next_zone = %s,"
                f" next_zone_day = (now() at time zone {zone_of()})::date + 1 where id = %s returning next_zone_day",
                (zone, account_id),
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("no such account")
            await audit(link, actor, "account.zone_set", account_id, f"zone={zone}", f"from={row[0]}")
            return await account_of(link, account_id)

    async def add_credits(self, account_id: str, micro_credits: int, *, reference: str, actor: str) -> AccountRecord:
        """Book credits, once for each reference.

        Raises NotFound, or NoCredit when the balance would fall below zero.
        """
        async with self._postgres.transaction() as link:
            await link.execute("select 1 from accounts where id = %s for update", (account_id,))
            if await credit(link, account_id, micro_credits, reference):
                await audit(
                    link, actor, "credits.added", account_id, f"micro_credits={micro_credits}", f"reference={reference}"
                )
            return await account_of(link, account_id)


async def _invited(link: Link, account_id: str, invitation: bytes, *, is_open: bool) -> tuple[str, str] | None:
    """Use an invitation up; return the team that it is to, and as what. Raises Conflict where it is not good."""
    cursor = await link.execute(
        "update invitations set used_by = %s where digest = %s and used_by is null and revoked_at is null"
        " and expires_at > now() returning team_id, team_role",
        (account_id, invitation),
    )
    row = await cursor.fetchone()
    if row is None and is_open:
        raise Conflict(_SPENT_INVITATION, param="invitation")
    if row is None:
        raise Conflict(_NO_INVITED)
    return (row[0], row[1]) if row[0] is not None else None


async def update_account(link: Link, account_id: str, *, actor: str, **changes: object) -> AccountRecord:
    """Set columns of an account, with an entry in the audit log. Limits that it sets no owner of a team takes away."""
    columns = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changes)
    cursor = await link.execute(
        sql.SQL("update accounts set {}, limits_before = limits_before - %s::text[] where id = %s").format(columns),
        (*changes.values(), list(changes), account_id),
    )
    if cursor.rowcount == 0:
        raise NotFound("no such account")
    # What is of a person is not told in a log that is kept for ever.
    details = (_PERSONAL.get(name) or f"{name}={value}" for name, value in changes.items())
    await audit(link, actor, "account.changed", account_id, *details)
    return await account_of(link, account_id)


async def enter_team(link: Link, account_id: str, team_id: str, role: str) -> None:
    """Put an account into the team that it was invited into."""
    await link.execute(
        "update accounts set team_id = %s, team_role = %s, team_by_groups = null where id = %s",
        (team_id, role, account_id),
    )
    await audit(link, account_id, "team.joined", account_id, f"team={team_id}", f"role={role}")


def _manages(role: str) -> frozenset[str]:
    """Return what an account's first key manages: whoever has no password has nothing else to manage it by."""
    return frozenset({ACCOUNT, ADMIN} if role == "admin" else {ACCOUNT})


async def account_of(link: Link, account_id: str) -> AccountRecord:
    """Return an account. Raises NotFound."""
    async with link.cursor(row_factory=class_row(AccountRecord)) as cursor:
        await cursor.execute(f"select {_COLUMNS} from accounts where id = %s", (account_id,))
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("no such account")
    return found


async def insert_account(
    link: Link,
    account_id: str,
    role: str,
    limits: Limits,
    rules: Sequence[quota_pb2.Rule],
    name: str,
    email: str | None,
    password_hash: str | None,
    *,
    unlimited: bool,
    priority: str = priorities.NORMAL,
) -> None:
    """Insert an account. Raises psycopg.errors.UniqueViolation where another has its email."""
    kept = asdict(limits)
    columns = ["id", "email", "name", "role", "password_hash", "unlimited", "priority", *kept]
    await link.execute(
        f"insert into accounts ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})",
        (account_id, email, name, role, password_hash, unlimited, priority, *kept.values()),
    )
    for rule in rules:
        await link.execute(
            "insert into rules (account_id, provider, model, operations) values (%s, %s, %s, %s)",
            (account_id, rule.provider, rule.model, list(rule.operations)),
        )
