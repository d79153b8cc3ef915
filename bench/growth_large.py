"""What four large chats at once do to a small one: its p95 beside them, over its p95 in quiet, in one run.

`measure` gives the ratio for bodies of each size; run as a module, it prints p50 and p95 for each size and kind. What
the machine does beside falls on both sides, but not alike: where it is busy, a large body takes the time of others too.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import uvloop

from bench.gateway import CHAT, upstream
from bench.upstream import MODEL
from deploy.local.stack import Stack
from services.common import low_priority

SIZES: Final = (80_000, 800_000, 8_000_000)
"""Bytes of a body."""
AT_ONCE: Final = 4
SECONDS: Final = 5.0
PAUSE_S: Final = 0.02
"""Between two small chats."""
_TOGETHER: Final = ("auth", "text", "router", "edge")
_SEPARATE: Final = (*_TOGETHER, "largetext", "largerouter")


class Quantiles(NamedTuple):
    """Latencies in milliseconds."""

    p50: float
    p95: float


def picture(size: int) -> dict[str, Any]:
    """Return a chat with a picture that makes its body so large."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10"
    data = base64.b64encode(head + os.urandom(size * 3 // 4)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return {**CHAT, "messages": [{"role": "user", "content": [part]}]}


def turns(size: int) -> dict[str, Any]:
    """Return a chat of so many bytes in messages of forty each: 8 MB would be 200,000, which are refused by name."""
    return {**CHAT, "messages": [{"role": "user", "content": "hello"}] * (size // 40)}


def _send(url: str, key: str, body: bytes) -> None:
    """Send large chats, in a process of its own, until it is ended."""

    low_priority.yield_to_others(10)  # it stands for other machines

    async def forever() -> None:
        async with aiohttp.ClientSession() as session:

            async def one() -> None:
                while True:
                    async with session.post(url, data=body, headers=_headers(key)) as answer:
                        await answer.read()

            await asyncio.gather(*(one() for _ in range(AT_ONCE)))

    uvloop.run(forever())


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


async def _asked(url: str, key: str, chat: dict[str, Any]) -> int:
    """Return the status of an answer that is read to its end."""
    body = json.dumps(chat).encode()
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=_headers(key)) as answer:
        await answer.read()
        return answer.status


async def _small(url: str, key: str, seconds: float) -> Quantiles:
    """Ask small chats one after another."""
    taken = []
    body = json.dumps(CHAT).encode()
    async with aiohttp.ClientSession() as session:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            async with session.post(url, data=body, headers=_headers(key)) as answer:
                await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"a small chat was refused: {answer.status}")
            taken.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(PAUSE_S)
    ordered = sorted(taken)
    return Quantiles(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)])


@contextmanager
def running(processes: tuple[str, ...] = _SEPARATE) -> Iterator[Stack]:
    """Yield a gateway over the cheap upstream."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder, upstream() as direct:
        environment = {"OPENAI_BASE_URL": direct, "OPENAI_API_KEY": "sk-bench", "MOA_LOG_LEVEL": "warning"}
        with Stack(Path(folder), environment=environment, processes=processes) as stack:
            url = f"{stack.url}/v1/chat/completions"
            # The first one starts the helper processes, however long that takes on a busy machine.
            status = uvloop.run(_asked(url, stack.api_key, picture(1_000_000)))
            if status != 200:
                raise SystemExit(f"a large chat was refused: {status}")
            yield stack


def beside(stack: Stack, body: dict[str, Any]) -> tuple[Quantiles, Quantiles]:
    """Return the latencies of small chats in quiet, and while large ones come."""
    url, key = f"{stack.url}/v1/chat/completions", stack.api_key
    quiet = uvloop.run(_small(url, key, SECONDS))
    sender = multiprocessing.get_context("spawn").Process(target=_send, args=(url, key, json.dumps(body).encode()))
    sender.start()
    try:
        uvloop.run(_small(url, key, 1.0))
        return quiet, uvloop.run(_small(url, key, SECONDS))
    finally:
        sender.terminate()
        sender.join()


def measure(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each size how many times the p95 of quiet a small chat's is beside four chats of so many bytes."""
    with running() as stack:
        found = [beside(stack, picture(size)) for size in sizes]
    return [{"ratio": busy.p95 / quiet.p95} for quiet, busy in found]


def main() -> None:
    """Print the latencies."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth_large", description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, help="bytes of a body")
    parser.add_argument("--together", action="store_true", help="without processes of their own for large requests")
    chosen = parser.parse_args()
    print(f"small chats ({MODEL}), ms{'quiet p50':>14}{'p95':>8}{'busy p50':>12}{'p95':>8}{'ratio':>8}")
    with running(_TOGETHER if chosen.together else _SEPARATE) as stack:
        for size in chosen.sizes:
            for kind in (picture, turns):
                quiet, busy = beside(stack, kind(min(size, 400_000) if kind is turns else size))
                row = (quiet.p50, quiet.p95, busy.p50, busy.p95, busy.p95 / quiet.p95)
                print(
                    f"{AT_ONCE} x {size:>9} {kind.__name__:<12}" + "".join(f"{each:>11.1f}" for each in row), flush=True
                )


if __name__ == "__main__":
    main()
