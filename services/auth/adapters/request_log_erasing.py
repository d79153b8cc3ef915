"""What is to go from the log of requests, noted in the transaction of whatever makes it go."""

from __future__ import annotations

from services.auth.adapters.postgres import Link


async def erase(link: Link, *, team_id: str | None = None, account_id: str | None = None) -> None:
    """Have everything go from the log that came until now, of a team, an account, or of an account in a team."""
    await link.execute(
        "insert into request_log_erasures (team_id, account_id, upto) values (%s, %s, now())", (team_id, account_id)
    )
