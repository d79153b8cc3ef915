"""A router that settles five reservations, keeps one open, and is killed before it can book: run as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from services.common.rpc.client import channel
from services.quota_client import Admission
from tests.auth.asking import TOKEN, reserve, settle


async def main(address: str, key: str, journal: Path) -> None:
    admission = Admission(channel(address), service_token=TOKEN, journal=journal)
    await admission.start()
    reservations = [await reserve(admission, key, 100) for _ in range(6)]
    for reservation in reservations[:5]:
        settle(reservation, 70)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
