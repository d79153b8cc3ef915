"""Keys in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Final, LiteralString

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from moa.quota.v1 import quota_pb2
from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain import keys
from services.auth.domain.accounts import NO_LIMITS, KeyLimits
from services.auth.domain.powers import ADMIN, Power, check_changes, check_gives, check_makes, check_replaces
from services.auth.domain.records import KeyRecord
from services.common.errors import Conflict, InvalidField, NotFound, Unauthenticated
from services.quota_client import priorities

_LIMITS: Final = tuple(field.name for field in fields(KeyLimits))
_LIMIT_COLUMNS: Final = ", ".join(_LIMITS)
_COLUMNS: Final = (
    f"id, account_id, name, prefix, scopes, {_LIMIT_COLUMNS}, created_at, expires_at, revoked_at, last_used_at,"
    " manages, counts_as, bound_by,"
    " exists (select 1 from budgets b where b.owner = coalesce(counts_as, keys.id) and b.deleted_at is null)"
    " as budgeted"
)
_COUNTED: Final = frozenset(_LIMITS) - {"priority"}
_ALIVE: LiteralString = "revoked_at is null and coalesce(expires_at > now(), true) and not of_session"


class Keys:
    """Keeps keys. A key of another account is NotFound."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def create(
        self,
        account_id: str,
        key: keys.NewKey,
        *,
        name: str = "",
        expires_in_s: float | None = None,
        scopes: Sequence[quota_pb2.Rule] = (),
        limits: KeyLimits = NO_LIMITS,
        manages: frozenset[str] = frozenset(),
        maker: str | None = None,
        actor: str | None = None,
    ) -> KeyRecord:
        """Store a key; `maker` is the key that asks for it, None where somebody who is logged in does.

        `actor` is whoever makes it for another account.

        Raises Conflict when the account has as many as it may, InvalidField for a higher priority than the account's,
        PermissionDenied for more than the maker is.
        """
        async with self._postgres.transaction() as link:
            # The row is locked, so that two calls at once cannot both take the last place.
            cursor = await link.execute(
                "select a.key_count, (select count(*) from keys k where k.account_id = a.id and "
                + _ALIVE
                + "), a.role, now() + make_interval(secs => %s) from accounts a where a.id = %s for update",
                (expires_in_s, account_id),
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("no such account")
            key_count, alive, role, expires_at = row
            bound_by = None
            if maker is not None:
                made = Power(manages=manages, scopes=tuple(scopes), expires_at=expires_at, **asdict(limits))
                bound_by = check_makes(await _maker(link, account_id, maker), made)
            if ADMIN in manages and role != "admin":
                raise InvalidField("only an administrator's key can have SCOPE_ADMIN", param="manages")
            if alive >= key_count:
                raise Conflict(f"the account has all the keys that it may have ({key_count}); revoke one first")
            await _check(link, account_id, limits.priority)
            key_id = await insert_key(
                link,
                account_id,
                key,
                name=name,
                expires_at=expires_at,
                scopes=scopes,
                limits=limits,
                manages=manages,
                bound_by=bound_by,
            )
            if actor is not None:
                await audit(link, actor, "key.created", account_id, f"key={key_id}")
            return await _get(link, account_id, key_id)

    async def list(self, account_id: str) -> list[KeyRecord]:
        """List an account's keys, the newest first."""
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(KeyRecord)) as cursor:
            await cursor.execute(
                f"select {_COLUMNS} from keys where account_id = %s and not of_session order by created_at desc, id",
                (account_id,),
            )
            return await cursor.fetchall()

    async def get(self, account_id: str, key_id: str) -> KeyRecord:
        """Return one key of an account. Raises NotFound."""
        async with self._postgres.transaction() as link:
            return await _get(link, account_id, key_id)

    async def update(
        self, account_id: str, key_id: str, *, maker: str | None = None, actor: str | None = None, **changes: object
    ) -> KeyRecord:
        """Set a key's `name`, or limits of its own; `maker` is the key that asks for it, `actor` the administrator.

        Raises InvalidField for a priority above the account's, PermissionDenied for more than the maker is.
        """
        async with self._postgres.transaction() as link:
            await _lock(link, account_id)
            asking = await _maker(link, account_id, maker) if maker is not None else None
            before = await _get(link, account_id, key_id)
            priority = changes.get("priority")
            await _check(link, account_id, priority if isinstance(priority, str) else None)
            for column, value in changes.items():
                # Limits are those of a counter, which a key shares with those that it replaced.
                whose = "%s in (id, counts_as) or id = %s" if column in _COUNTED else "%s = id and id = %s"
                await link.execute(
                    sql.SQL("update keys set {} = %s where (" + whose + ") and account_id = %s").format(
                        sql.Identifier(column)
                    ),
                    (value, before.counter if column in _COUNTED else key_id, key_id, account_id),
                )
            after = await _get(link, account_id, key_id)
            if asking is not None:
                check_changes(asking, before, after)
            if actor is not None:
                details = ("a new name" if name == "name" else f"{name}={value}" for name, value in changes.items())
                await audit(link, actor, "key.changed", account_id, f"key={key_id}", *details)
            return after

    async def revoke(self, account_id: str, key_id: str, *, actor: str | None = None) -> KeyRecord:
        """End a key; `actor` is the administrator who does."""
        async with self._postgres.transaction() as link:
            revoked = await revoke_key(link, account_id, key_id)
            if actor is not None:
                await audit(link, actor, "key.revoked", account_id, f"key={key_id}")
            return revoked

    async def rotate(
        self,
        account_id: str,
        key_id: str,
        key: keys.NewKey,
        *,
        maker: str | None = None,
        actor: str | None = None,
        overlap_s: float | None = None,
    ) -> KeyRecord:
        """Put a new key in an old one's place, whose counters it goes on with; `maker` is the key that asks for it,
        `actor` the administrator.

        The old one works on for `overlap_s`, on the same counters; None: it is revoked. Raises Conflict when the old
        one has ended, PermissionDenied when it is more than the maker.
        """
        async with self._postgres.transaction() as link:
            await _lock(link, account_id)
            if maker is not None:
                asking = await _maker(link, account_id, maker)
                check_replaces(asking, await _get(link, account_id, key_id))
            new_id = keys.new_id("key")
            cursor = await link.execute(
                "insert into keys"
                f" (id, account_id, name, prefix, digest, scopes, {_LIMIT_COLUMNS}, expires_at, manages, counts_as,"
                f" bound_by) select %s, account_id, name, %s, %s, scopes, {_LIMIT_COLUMNS}, expires_at, manages,"
                " coalesce(counts_as, id), bound_by from keys where id = %s and account_id = %s and "
                + _ALIVE
                + " for update",
                (new_id, key.prefix, key.digest, key_id, account_id),
            )
            if cursor.rowcount == 0:
                await _get(link, account_id, key_id)
                raise Conflict("the key has ended; make a new one")
            if overlap_s is None:
                await revoke_key(link, account_id, key_id)
            else:
                await link.execute(
                    "update keys set expires_at = least(expires_at, now() + make_interval(secs => %s)) where id = %s",
                    (overlap_s, key_id),
                )
            if actor is not None:
                overlap = [] if overlap_s is None else [f"overlap_s={overlap_s:g}"]
                await audit(link, actor, "key.rotated", account_id, f"key={key_id}", f"by={new_id}", *overlap)
            return await _get(link, account_id, new_id)

    async def check_gives(self, account_id: str, key_id: str, scope: str = ADMIN) -> None:
        """Raise PermissionDenied where a key that manages others is limited, and so gives nobody anything."""
        async with self._postgres.transaction() as link:
            check_gives(await _maker(link, account_id, key_id), scope)


async def insert_key(
    link: Link,
    account_id: str,
    key: keys.NewKey,
    *,
    name: str = "",
    expires_at: datetime | None = None,
    scopes: Sequence[quota_pb2.Rule] = (),
    limits: KeyLimits = NO_LIMITS,
    manages: frozenset[str] = frozenset(),
    bound_by: str | None = None,
) -> str:
    """Insert a key; give its id."""
    key_id = keys.new_id("key")
    stored = [
        {"provider": rule.provider, "model": rule.model, "operations": [int(o) for o in rule.operations]}
        for rule in scopes
    ]
    await link.execute(
        "insert into keys (id, account_id, name, prefix, digest, scopes, expires_at, manages, bound_by,"
        f" {_LIMIT_COLUMNS}) values ({', '.join(['%s'] * (9 + len(_LIMITS)))})",
        (
            key_id,
            account_id,
            name,
            key.prefix,
            key.digest,
            Jsonb(stored),
            expires_at,
            sorted(manages),
            bound_by,
            *(getattr(limits, name) for name in _LIMITS),
        ),
    )
    return key_id


async def revoke_key(link: Link, account_id: str, key_id: str) -> KeyRecord:
    """End a key, unless it has ended; give it."""
    await link.execute(
        "update keys set revoked_at = now() where id = %s and account_id = %s and revoked_at is null",
        (key_id, account_id),
    )
    return await _get(link, account_id, key_id)


async def _lock(link: Link, account_id: str) -> None:
    """Keep an account's keys as they are until the transaction ends. Raises NotFound."""
    cursor = await link.execute("select 1 from accounts where id = %s for update", (account_id,))
    if await cursor.fetchone() is None:
        raise NotFound("no such account")


async def _maker(link: Link, account_id: str, key_id: str) -> KeyRecord:
    """Return the key that asks for a change, as it is now. Raises Unauthenticated when it has ended meanwhile."""
    cursor = await link.execute("select " + _ALIVE + " from keys where id = %s", (key_id,))
    if await cursor.fetchone() != (True,):
        raise Unauthenticated("the API key is not valid; send it whole, or one that is not expired or revoked")
    return await _get(link, account_id, key_id)


async def _check(link: Link, account_id: str, priority: str | None) -> None:
    """Raise InvalidField for a key's priority that is higher than its account's."""
    if priority is None:
        return
    cursor = await link.execute("select priority from accounts where id = %s", (account_id,))
    row = await cursor.fetchone()
    if row is not None and priorities.lower(row[0], priority) != priority:
        raise InvalidField(f"a key can only lower its account's priority, which is {row[0]}", param="priority")


async def _get(link: Link, account_id: str, key_id: str) -> KeyRecord:
    async with link.cursor(row_factory=class_row(KeyRecord)) as cursor:
        await cursor.execute(
            f"select {_COLUMNS} from keys where id = %s and account_id = %s and not of_session", (key_id, account_id)
        )
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("no such key")
    return found
