"""The audit log: what administrators did."""

from __future__ import annotations

from services.auth.adapters.postgres import Link


async def audit(link: Link, actor: str, act: str, account_id: str, *details: str) -> None:
    """Note what an administrator did, in the transaction that does it."""
    await link.execute(
        "insert into audit (actor, act, account_id, details) values (%s, %s, %s, %s)",
        (actor, act, account_id, list(details)),
    )
