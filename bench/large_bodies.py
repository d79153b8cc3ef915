"""What large bodies cost a whole gateway: processor time and the peak of memory, of each process and of all together.

`python -m bench.large_bodies` sends edits of a picture of 9 MB, one at a time and sixteen at once, and chats with four
pictures of 3.6 MB, one at a time and sixteen at once: a JSON body may have 20 MiB.
Linux only: memory is what /proc says of shared and private pages.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import psycopg
import uvloop

from bench import growth_pictures
from bench.gateway import CHAT, upstream
from deploy.local.stack import Stack
from deploy.local.topology import DATABASE, LARGE_ROUTER, LARGE_TEXT

PICTURE_BYTES: Final = 9 * 2**20
FOUR_BYTES: Final = int(3.6 * 2**20)
"""Of each of four pictures."""
AT_ONCE: Final = 16
_LOOK_S: Final = 0.05
_RESTED_S: Final = 12.0

Ask = Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]


@dataclass
class Cost:
    """What requests cost, by process; children count with who started them.

    `others` are the fork server, the helper processes that it forks, and the collector of logs.
    """

    cpu_s: dict[str, float] = field(default_factory=dict)
    mb: dict[str, float] = field(default_factory=dict)
    """At the moment when all of them together had most."""
    all_mb: float = 0.0
    seconds: float = 0.0


def _families(stack: Stack) -> dict[str, list[psutil.Process]]:
    found = {}
    for name in (*stack.names, DATABASE):
        if (pid := stack.pid(name)) is not None:
            process = psutil.Process(pid)
            found[name] = [process, *process.children(recursive=True)]
    known = {process.pid for family in found.values() for process in family}
    found["others"] = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in known and not _is_upstream(process)
    ]
    return found


def _is_upstream(process: psutil.Process) -> bool:
    try:
        return any("bench." in word for word in process.cmdline())
    except psutil.Error:
        return True


def _pss_mb(process: psutil.Process) -> float:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def _held_mb(stack: Stack) -> dict[str, float]:
    return {name: sum(map(_pss_mb, family)) for name, family in _families(stack).items()}


def _spent_s(stack: Stack) -> Counter[str]:
    spent: Counter[str] = Counter()
    for name, family in _families(stack).items():
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            spent[name] += times.user + times.system
    return spent


@contextmanager
def _watched(stack: Stack) -> Iterator[Cost]:
    """Yield what is filled in as time goes by, and whole when the block has ended."""
    cost, ended = Cost(), threading.Event()

    def watch() -> None:
        while True:
            held = _held_mb(stack)
            if sum(held.values()) > cost.all_mb:
                cost.all_mb, cost.mb = sum(held.values()), held
            if ended.wait(_LOOK_S):
                return

    before, began = _spent_s(stack), time.monotonic()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield cost
    finally:
        ended.set()
        watcher.join()
    cost.seconds = time.monotonic() - began
    cost.cpu_s = {name: spent - before[name] for name, spent in _spent_s(stack).items()}


def edits(stack: Stack, size_bytes: int = PICTURE_BYTES) -> Ask:
    """Return what asks for one edit of a picture of so many bytes."""
    data = growth_pictures.picture(size_bytes)
    headers = {"Authorization": f"Bearer {stack.api_key}"}

    async def one(session: aiohttp.ClientSession) -> None:
        form = aiohttp.FormData()
        for name, value in (("model", growth_pictures.MODEL), ("prompt", "a sea"), ("response_format", "b64_json")):
            form.add_field(name, value)
        form.add_field("image", io.BytesIO(data), filename="a.png", content_type="image/png")
        await _good(session.post(f"{stack.url}/v1/images/edits", data=form, headers=headers))

    return one


def chats(stack: Stack, size_bytes: int = FOUR_BYTES) -> Ask:
    """Return what asks for one chat with four pictures of so many bytes each."""
    link = "data:image/png;base64," + base64.b64encode(growth_pictures.picture(size_bytes)).decode()
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What are these?"}]
    parts += [{"type": "image_url", "image_url": {"url": link}}] * 4
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": parts}]}).encode()
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"}

    async def one(session: aiohttp.ClientSession) -> None:
        await _good(session.post(f"{stack.url}/v1/chat/completions", data=io.BytesIO(body), headers=headers))

    return one


async def _good(asked: Any) -> None:
    async with asked as answer:
        if answer.status != 200:
            raise SystemExit(f"it was refused: {answer.status} {(await answer.text())[:300]}")
        await answer.read()


async def _all(ask: Ask, count: int) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        await asyncio.gather(*(ask(session) for _ in range(count)))


def measured(stack: Stack, ask: Ask, count: int) -> Cost:
    """Return what so many at once cost."""
    with _watched(stack) as cost:
        uvloop.run(_all(ask, count))
    return cost


@contextmanager
def running(base_url: str) -> Iterator[Stack]:
    """Yield a gateway as `make run` starts it, with one router, whose provider is there."""
    environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-bench", "MOA_LOG_LEVEL": "warning"}
    workers = {LARGE_ROUTER.name: 1, LARGE_TEXT.name: 1}
    with (
        tempfile.TemporaryDirectory(prefix="moa-bench-") as folder,
        Stack(
            Path(folder),
            environment={**environment, "MOA_FETCH": "never"},
            postpones=True,
            workers=workers,
        ) as stack,
    ):
        # The first account has the usual limits: many edits at once find its lease taken.
        with psycopg.connect(stack.database_url) as link:
            link.execute("update accounts set unlimited = true")
        yield stack


def _told(what: str, count: int, cost: Cost, before: dict[str, float]) -> None:
    print(f"{count} {what}: {cost.seconds:.1f} s; {cost.all_mb:.0f} MB in all, {sum(before.values()):.0f} before")
    for name in cost.mb:
        grown = cost.mb[name] - before.get(name, 0.0)
        spent_ms = 1000 * cost.cpu_s.get(name, 0.0) / count
        if grown > 1 or spent_ms > 1:
            print(f"  {name:<12} {spent_ms:8.0f} ms each {cost.mb[name]:8.0f} MB, {grown:+.0f}", flush=True)


def main() -> None:
    """Print what each kind costs, one at a time and many at once."""
    parser = argparse.ArgumentParser(prog="python -m bench.large_bodies", description=__doc__)
    parser.add_argument("--count", type=int, default=AT_ONCE, help="how many at once")
    count = parser.parse_args().count
    with growth_pictures.provider() as direct, running(f"{direct}/v1") as stack:
        _series(stack, "edits of 9 MB", edits(stack), count)
    with upstream() as direct, running(direct) as stack:
        _series(stack, "chats with four pictures", chats(stack), count)


def _series(stack: Stack, what: str, ask: Ask, count: int) -> None:
    # The edge gives back what its start alone needed, ten seconds after it.
    time.sleep(_RESTED_S)
    # The first one starts the processes that are for them; what served it meanwhile rests by the time of the many.
    for number in (1, 1, count):
        if number == count:
            time.sleep(_RESTED_S)
        before = _held_mb(stack)
        _told(what, number, measured(stack, ask, number), before)


if __name__ == "__main__":
    main()
