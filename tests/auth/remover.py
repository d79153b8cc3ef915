"""A replica that removes old rows of the ledger, as a process that can be killed."""

from __future__ import annotations

import asyncio
import sys

from services.auth.adapters.checker import Checker
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.retention import Retention


async def main(url: str, days: int) -> None:
    postgres = Postgres(url, size=1, wait_s=20)
    await postgres.open()
    ids = []
    async with postgres.transaction() as link:
        ids = [block_id for (block_id,) in await (await link.execute("select id from blocks")).fetchall()]
    await Retention(postgres, Checker(url), days=days).remove(ids)
    await postgres.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
