"""Credits of accounts in PostgreSQL."""

from __future__ import annotations

import psycopg

from services.auth.adapters.postgres import Link
from services.common.errors import NoCredit


async def credit(link: Link, account_id: str, micro_credits: int, reference: str) -> bool:
    """Book credits; return False where the account has booked the reference. Raises NoCredit for more than it has."""
    cursor = await link.execute(
        "insert into credits (account_id, reference, micro_credits) select id, %s, %s from accounts where id = %s"
        " on conflict do nothing",
        (reference, micro_credits, account_id),
    )
    if cursor.rowcount == 0:
        return False
    try:
        await link.execute(
            "update accounts set micro_credits = micro_credits + %s where id = %s", (micro_credits, account_id)
        )
    except psycopg.errors.CheckViolation:
        raise NoCredit("the account does not have that many credits") from None
    return True
