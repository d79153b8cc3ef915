"""A router of the soak, as a process: admits requests and has an emulated provider answer them, which keeps an invoice.

    python -m tests.auth.holder ADDRESSES KEY JOURNAL INVOICE COUNT PAUSE_S SPREAD_S PATIENCE_S LEAVERS

Each request reserves 100 tokens, with their price in dollars, and is answered in five parts of 20; the provider writes
every part to its invoice before the router hears of it. Half of them have a tag. A share of the callers, LEAVERS,
leaves at random: before the first part, when only the backend knows whether the provider had begun, or after some.
Prints one line a request: what became of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.common import logs
from services.common.errors import MoaError, QuotaExhausted
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls, Admission, Reservation
from services.quota_client.amounts import Amount
from tests.auth.asking import TOKEN, reserve, tokens

TOKENS = 100
PARTS = 5
NANO_USD = 7
"""The price of a token."""
TAG = "soak"
"""What half of the requests have."""


WORD_S = 0.5
"""How long the backend waits with its word on a call that was left. The router waits for it as long as a real one."""


def cost(usage: usage_pb2.Usage, provider: str, model: str) -> int:
    """Return what a usage costs."""
    return NANO_USD * (usage.prompt_tokens + usage.completion_tokens)


def _unheard(_: object) -> None:
    """Take note of nothing."""


def left(backend: AbandonedCalls, reservation: Reservation, invoice: int) -> str:
    """Leave before anything was heard: two times in three the provider had the prompt, and its backend says so."""
    reservation.defer(usage=usage_pb2.Usage(), provider="local-text", model="m", then=_unheard)
    if random.random() < 2 / 3:
        used = TOKENS // PARTS
        os.write(invoice, f"{reservation.reservation_id} {used}\n".encode())
        backend.left(
            reservation.reservation_id,
            usage=tokens(used),
            operation=quota_pb2.OPERATION_TEXT,
            provider="local-text",
            model="m",
            request_id="r",
            cost=cost,
        )
    return "left"


async def answered(
    admission: Admission,
    backend: AbandonedCalls,
    key: str,
    invoice: int,
    *,
    pause_s: float,
    patience_s: float,
    leavers: float,
) -> str:
    """Do one request; a gateway that is not available is asked again, as a client would."""
    end = time.monotonic() + patience_s
    leaves_at = random.randrange(PARTS) if random.random() < leavers else None
    need = Amount(tokens=TOKENS, nano_usd=TOKENS * NANO_USD)
    tags = random.choice(((), (TAG,)))
    while True:
        try:
            reservation = await reserve(admission, key, need=need, least=need, cost=cost, tags=tags)
            break
        except QuotaExhausted:
            if time.monotonic() >= end:
                return "refused"
            await asyncio.sleep(0.25)
        except MoaError:
            await asyncio.sleep(0.1)
    for part in range(1, PARTS + 1):
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        if leaves_at == 0:
            return left(backend, reservation, invoice)
        used = TOKENS * part // PARTS
        os.write(invoice, f"{reservation.reservation_id} {used}\n".encode())
        reservation.report(usage=tokens(used), provider="local-text", model="m")
        if leaves_at == part:
            reservation.settle(usage=tokens(used), provider="local-text", model="m")
            return "left"
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
    leavers: float,
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    link = channel(addresses)
    admission = Admission(link, service_token=TOKEN, journal=journal)
    await admission.start()
    backend = AbandonedCalls(link, service_token=TOKEN, after_s=WORD_S)
    await backend.start()
    invoice = os.open(invoice_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def one() -> None:
        await asyncio.sleep(random.uniform(0, spread_s))
        became = await answered(
            admission, backend, key, invoice, pause_s=pause_s, patience_s=patience_s, leavers=leavers
        )
        print(became, flush=True)

    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    print("done", flush=True)
    await stop.wait()
    await backend.stop()
    await admission.stop()
    await link.close()


if __name__ == "__main__":
    logs.configure("holder", "error")  # to standard error: standard output is for what became of requests
    addresses, key, journal, invoice, count, pause_s, spread_s, patience_s, leavers = sys.argv[1:]
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
            leavers=float(leavers),
        )
    )
