"""A router that settles five reservations, keeps one open, and is killed when the first is booked: run as a process.

What it settled after the first waits half a second for the next batch then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from services.common.rpc.client import channel
from tests.auth.asking import TOKEN, Router, reserve, settle


async def main(address: str, key: str, journal: Path) -> None:
    admission = Router(channel(address), service_token=TOKEN, journal=journal)
    await admission.start()
    reservations = [await reserve(admission, key, 100) for _ in range(6)]
    settle(reservations[0], 70)
    await admission.booked()
    for reservation in reservations[1:5]:
        settle(reservation, 70)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
