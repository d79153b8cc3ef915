"""Whose an account is by an identity provider's word, and log-ins that have come back from it, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import psycopg
from psycopg.rows import class_row

from services.auth.adapters.accounts import insert_account
from services.auth.adapters.audit import audit
from services.auth.adapters.memberships import follow_groups
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.sealing import Sealer
from services.auth.adapters.team_accounts import check_logs_in
from services.auth.domain import keys
from services.auth.domain.accounts import DEFAULT_LIMITS, LOCAL_ONLY
from services.auth.domain.oidc import GroupRule, Person
from services.common.errors import Conflict, NotFound, PermissionDenied, Unauthenticated

ARRIVAL_S: Final = 300
"""How long the page may take to ask for a session; a code of a second factor is typed meanwhile."""
ACTOR: Final = "oidc"
"""The actor of what happens before it is known whose log-in it is."""
_AGAIN: Final = "this log-in was completed or has ended; log in with the identity provider again"
_HIS: Final = "an account with this address exists; log in to it with its password, then link the identity"


class Arrival(NamedTuple):
    """A log-in that has come back."""

    digest: bytes
    person: Person
    id_token: str


class Found(NamedTuple):
    """An account."""

    account_id: str
    disabled: bool


@dataclass(frozen=True, kw_only=True)
class IdentityRecord:
    """An identity, without the issuer's name of the person."""

    id: str
    issuer: str
    created_at: datetime
    last_used_at: datetime | None


class Raced(Exception):
    """Another log-in of the same person was linked meanwhile: what was found is not so any more."""


class _Sealed(msgspec.Struct):
    person: Person
    id_token: str


class Identities:
    """Keeps identities. What is done to them is in the audit log, in the same transaction.

    Args:
        pepper: What is kept of a log-in is sealed with.
    """

    def __init__(self, postgres: Postgres, *, pepper: bytes) -> None:
        self._postgres = postgres
        self._sealer = Sealer(pepper, "oidc arrival")

    async def take_state(self, digest: bytes, *, lasts_s: float) -> bool:
        """Return whether a log-in comes back for the first time."""
        async with self._postgres.transaction() as link:
            await link.execute("delete from oidc_states where ends_at < now()")
            cursor = await link.execute(
                "insert into oidc_states (digest, ends_at) values (%s, now() + make_interval(secs => %s))"
                " on conflict do nothing",
                (digest, lasts_s),
            )
            return cursor.rowcount == 1

    async def arrive(self, digest: bytes, person: Person, id_token: str) -> None:
        """Keep whom the issuer vouched for until its browser asks for a session."""
        sealed = self._sealer.seal(_record(digest), msgspec.json.encode(_Sealed(person, id_token)))
        async with self._postgres.transaction() as link:
            await link.execute("delete from oidc_arrivals where ends_at < now()")
            await link.execute(
                "insert into oidc_arrivals (digest, sealed, ends_at)"
                " values (%s, %s, now() + make_interval(secs => %s))",
                (digest, sealed, ARRIVAL_S),
            )

    async def arrived(self, digest: bytes) -> Arrival:
        """Return a log-in that has come back and was not completed. Raises Unauthenticated."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select sealed from oidc_arrivals where digest = %s and ends_at > now()", (digest,)
            )
            row = await cursor.fetchone()
        plain = self._sealer.open(_record(digest), bytes(row[0])) if row else None
        if plain is None:
            raise Unauthenticated(_AGAIN)
        kept = msgspec.json.decode(plain, type=_Sealed)
        return Arrival(digest, kept.person, kept.id_token)

    async def find(self, person: Person, *, by_email: bool) -> Found | None:
        """Return the account of a person; with `by_email` also one that has the address."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select a.id, a.disabled_at is not null from identities i join accounts a on a.id = i.account_id"
                " where i.issuer = %s and i.subject = %s",
                (person.issuer, person.subject),
            )
            row = await cursor.fetchone()
            if row is None and by_email and person.email is not None:
                cursor = await link.execute(
                    "select id, disabled_at is not null from accounts where email = %s", (person.email,)
                )
                row = await cursor.fetchone()
        return Found(*row) if row else None

    async def enter(self, arrival: Arrival, account_id: str | None, rules: Sequence[GroupRule] | None) -> str:
        """Complete a log-in: of a new account where none is given, whose id is returned. `rules` are those of the
        person's groups; None: its teams stay as they are.

        Raises Unauthenticated where it was completed, PermissionDenied for a disabled account, Conflict where another
        account has the new one's address, Raced.
        """
        person = arrival.person
        async with self._postgres.transaction() as link:
            await _use_up(link, arrival)
            how = "sign-up" if account_id is None else "email"
            if account_id is None:
                account_id = await _sign_up(link, person)
            if await _link(link, account_id, person):
                if how == "email":
                    await _take_over(link, account_id)
                await audit(link, account_id, "identity.linked", account_id, f"issuer={person.issuer}", f"by={how}")
            if rules is not None:
                await follow_groups(link, account_id, rules)
            cursor = await link.execute("select disabled_at is not null from accounts where id = %s", (account_id,))
            if await cursor.fetchone() != (False,):
                raise PermissionDenied("this account is disabled; ask an administrator")
        return account_id

    async def link(self, arrival: Arrival, account_id: str) -> IdentityRecord:
        """Let a person log in to an account whose owner asks for it.

        Raises Conflict where the identity is another account's, Unauthenticated where the log-in was completed.
        """
        async with self._postgres.transaction() as link:
            await _use_up(link, arrival)
            await check_logs_in(link, account_id)
            try:
                made = await _link(link, account_id, arrival.person)
            except Raced:
                raise Conflict("this identity logs in to another account; unlink it there first") from None
            if made:
                issuer = f"issuer={arrival.person.issuer}"
                await audit(link, account_id, "identity.linked", account_id, issuer, "by=session")
            (record,) = [
                one for one in await _listed(link, account_id, arrival.person) if one.issuer == arrival.person.issuer
            ]
        return record

    async def list(self, account_id: str) -> list[IdentityRecord]:
        """List the identities of an account, the oldest first."""
        async with self._postgres.transaction() as link:
            return await _listed(link, account_id)

    async def unlink(self, account_id: str, identity_id: str, *, actor: str | None = None) -> None:
        """Take an identity away; `actor` is the administrator who does, by whom sessions end, too.

        Raises NotFound, or Conflict for the only way to log in, which administrators alone take away.
        """
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select password_hash is not null from accounts where id = %s for update", (account_id,)
            )
            row = await cursor.fetchone()
            cursor = await link.execute(
                "delete from identities where account_id = %s and id = %s returning issuer", (account_id, identity_id)
            )
            gone = await cursor.fetchone()
            if gone is None:
                raise NotFound("no such identity")
            if actor is not None:
                await link.execute("delete from sessions where account_id = %s", (account_id,))
            elif row is not None and not row[0] and not await _listed(link, account_id):
                raise Conflict("the account could not be logged in to; set a password first")
            await audit(link, actor or account_id, "identity.removed", account_id, f"issuer={gone[0]}")

    async def note_failure(self, cause: str, account_id: str = "") -> None:
        """Note in the audit log why a log-in failed."""
        async with self._postgres.transaction() as link:
            await audit(link, account_id or ACTOR, "log_in.failed", account_id, "by=oidc", f"cause={cause}")


async def _use_up(link: Link, arrival: Arrival) -> None:
    cursor = await link.execute("delete from oidc_arrivals where digest = %s and ends_at > now()", (arrival.digest,))
    if cursor.rowcount == 0:
        raise Unauthenticated(_AGAIN)


async def _sign_up(link: Link, person: Person) -> str:
    account_id = keys.new_id("acc")
    try:
        async with link.transaction():
            await insert_account(
                link, account_id, "user", DEFAULT_LIMITS, [LOCAL_ONLY], person.name, person.email, None, unlimited=False
            )
    except psycopg.errors.UniqueViolation:
        raise Conflict(_HIS) from None
    await audit(link, account_id, "account.created", account_id, "role=user", "by=oidc")
    return account_id


async def _take_over(link: Link, account_id: str) -> None:
    """End what somebody else may have set up who signed up with an address that was not theirs."""
    await link.execute("update accounts set password_hash = null where id = %s", (account_id,))
    await link.execute("delete from sessions where account_id = %s", (account_id,))
    await link.execute("delete from password_resets where account_id = %s", (account_id,))


async def _link(link: Link, account_id: str, person: Person) -> bool:
    """Note that a person logs in to an account; return whether that is new. Raises Raced where it is another's."""
    cursor = await link.execute(
        "insert into identities (id, issuer, subject, account_id, last_used_at) values (%s, %s, %s, %s, now())"
        " on conflict (issuer, subject) do update set last_used_at = now() returning account_id, xmax = 0",
        (keys.new_id("idn"), person.issuer, person.subject, account_id),
    )
    row = await cursor.fetchone()
    assert row is not None
    if row[0] != account_id:
        raise Raced
    return bool(row[1])


async def _listed(link: Link, account_id: str, person: Person | None = None) -> list[IdentityRecord]:
    async with link.cursor(row_factory=class_row(IdentityRecord)) as cursor:
        await cursor.execute(
            "select id, issuer, created_at, last_used_at from identities where account_id = %s"
            " and (%s::text is null or subject = %s) order by created_at, id",
            (account_id, person and person.subject, person and person.subject),
        )
        return await cursor.fetchall()


def _record(digest: bytes) -> UUID:
    return uuid5(NAMESPACE_URL, f"moa:oidc:{digest.hex()}")
