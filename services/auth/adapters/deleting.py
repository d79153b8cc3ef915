"""Deletion of accounts: what is of a person is erased, in one transaction; the books keep the id."""

from __future__ import annotations

from typing import Final, LiteralString

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Link
from services.common.errors import Conflict, NotFound
from services.quota_client.labels import USER_PREFIX

_ERASED: Final[tuple[LiteralString, ...]] = (
    "update accounts set email = null, name = '', password_hash = null, totp = null,"
    " totp_pending = null, disabled_at = coalesce(disabled_at, now()),"
    " deleted_at = now(), team_id = null, team_role = null where id = %(account)s",
    # Rows of keys stay: what was borrowed under them is bound by their limits.
    "update keys set name = '', prefix = '', digest = sha256(gen_random_uuid()::text::bytea),"
    " revoked_at = coalesce(revoked_at, now()) where account_id = %(account)s",
    "delete from identities where account_id = %(account)s",
    "delete from sessions where account_id = %(account)s",
    "delete from rules where account_id = %(account)s",
    "update audit set details = array(select d from unnest(details) d where d not like 'email=%%'"
    " and d not like 'name=%%') where account_id = %(account)s and (details::text like '%%email=%%'"
    " or details::text like '%%name=%%')",
    "update ledger set tags = nullif(array(select t from unnest(tags) t where not starts_with(t, %(user)s)), '{}')"
    " where account_id = %(account)s and tags is not null"
    " and exists (select from unnest(tags) t where starts_with(t, %(user)s))",
    "call forget_users(%(account)s)",
    "delete from stored_responses where account_id = %(account)s",
    "delete from stored_conversations where account_id = %(account)s",
    "delete from stored_room where account_id = %(account)s",
    "insert into request_log_erasures (account_id) values (%(account)s)",
)


async def erase(link: Link, account_id: str, *, actor: str) -> None:
    """Erase what is of a person in an account, unless it was deleted before.

    Raises NotFound, or Conflict for the account of a team's keys.
    """
    cursor = await link.execute("select deleted_at is null from accounts where id = %s for update", (account_id,))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("no such account")
    cursor = await link.execute("select id from teams where account_id = %s and deleted_at is null", (account_id,))
    if team := await cursor.fetchone():
        raise Conflict(f"this is the account of the keys of {team[0]}; delete the team")
    if row[0]:
        for statement in _ERASED:
            await link.execute(statement, {"account": account_id, "user": USER_PREFIX})
        await audit(link, actor, "account.deleted", account_id)
