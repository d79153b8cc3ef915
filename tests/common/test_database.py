"""Connections to PostgreSQL, as tasks that are cancelled have them."""

from __future__ import annotations

import asyncio

from services.common.database import Database

TURNS = 24
"""Up to how many turns of the loop after a connection is free a cancellation is tried."""


async def pass_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_whoever_waits_for_a_connection_stays_cancelled(database_url: str) -> None:
    """A cancellation that comes while a connection is passed on ends who waits for it, at whichever turn it comes."""
    database = Database(
        database_url, what="accounts", size=1, wait_s=20, statement_s=20, lock_s=20, answer_s=60, at_once=True
    )
    never = asyncio.Event()

    async def use() -> None:
        async with database.transaction() as link:
            await link.execute("select 1")
            await never.wait()

    await database.open()
    try:
        for turns in range(TURNS):
            async with database.transaction() as link:
                await link.execute("select 1")
                waiting = asyncio.create_task(use())
                await pass_turns(10)
            await pass_turns(turns)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=60)
            assert waiting.cancelled(), f"lost after {turns} turns"
    finally:
        never.set()
        await database.close()
