"""The accounts by which teams' own keys act, in PostgreSQL."""

from __future__ import annotations

from services.auth.adapters.postgres import Link
from services.common.errors import Conflict


async def is_of_a_team(link: Link, account_id: str) -> bool:
    """Return whether a team's own keys act by an account."""
    cursor = await link.execute("select 1 from teams where account_id = %s", (account_id,))
    return await cursor.fetchone() is not None


async def check_logs_in(link: Link, account_id: str) -> None:
    """Raise Conflict for an account that nobody may log in to: owners of its team make keys of it, and would be
    whoever it is."""
    if await is_of_a_team(link, account_id):
        raise Conflict(
            "this is the account of a team's own keys, which has no email, no password and no role but service; make"
            " another account, and put that into the team"
        )
