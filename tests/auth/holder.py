"""A router of the soak, as a process: admits requests and has an emulated provider answer them, which keeps an invoice.

    python -m tests.auth.holder ADDRESSES KEY JOURNAL INVOICE COUNT PAUSE_S SPREAD_S PATIENCE_S

Each request reserves 100 tokens and is answered in five parts of 20; the provider writes every part to its invoice
before the router hears of it. Prints one line a request: what became of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from services.common import logs
from services.common.admission import Admission
from services.common.errors import MoaError, QuotaExhausted
from services.common.rpc.client import channel
from tests.auth.asking import TOKEN, reserve, tokens

TOKENS = 100
PARTS = 5


async def answered(admission: Admission, key: str, invoice: int, pause_s: float, patience_s: float) -> str:
    """Do one request; a gateway that is not available is asked again, as a client would."""
    end = time.monotonic() + patience_s
    while True:
        try:
            reservation = await reserve(admission, key, TOKENS)
            break
        except QuotaExhausted:
            if time.monotonic() >= end:
                return "refused"
            await asyncio.sleep(0.25)
        except MoaError:
            await asyncio.sleep(0.1)
    for part in range(1, PARTS + 1):
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        used = TOKENS * part // PARTS
        os.write(invoice, f"{reservation.reservation_id} {used}\n".encode())
        reservation.report(usage=tokens(used), provider="local-text", model="m")
    reservation.settle(usage=tokens(TOKENS), provider="local-text", model="m")
    return "answered"


async def main(
    addresses: str,
    key: str,
    journal: Path,
    invoice_path: Path,
    count: int,
    *,
    pause_s: float,
    spread_s: float,
    patience_s: float,
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    link = channel(addresses)
    admission = Admission(link, service_token=TOKEN, journal=journal)
    await admission.start()
    invoice = os.open(invoice_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def one() -> None:
        await asyncio.sleep(random.uniform(0, spread_s))
        print(await answered(admission, key, invoice, pause_s, patience_s), flush=True)

    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    print("done", flush=True)
    await stop.wait()
    await admission.stop()
    await link.close()


if __name__ == "__main__":
    logs.configure("holder", "error")  # to standard error: standard output is for what became of requests
    addresses, key, journal, invoice, count, pause_s, spread_s, patience_s = sys.argv[1:]
    asyncio.run(
        main(
            addresses,
            key,
            Path(journal),
            Path(invoice),
            int(count),
            pause_s=float(pause_s),
            spread_s=float(spread_s),
            patience_s=float(patience_s),
        )
    )
