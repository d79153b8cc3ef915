"""`make cost`: what a request and a delta take in the router and the text service, against what is recorded.

Both run in this process, each in a thread of its own, with the real admission over a real auth and its database; one
request is done at a time. What is counted runs in their threads: the calls of our own functions, those of all of
Python's functions (a coroutine that goes on is one too), and the calls of C functions from our own. Unlike times, these
are the same on every machine, however busy it is. A count more than a tenth above its record fails; of one that much
below it is said that the record is to be brought up to date (`make cost ARGS=--record`). Counts of all functions and of
C functions depend on Python's minor version, and are judged where it is the recorded one.

Beside them stands CPU time of the thread over that of a fixed work of the same run; it fails nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Final

import psycopg
import uvloop
from google.api import httpbody_pb2

from bench import paced
from bench.active_keys import replica
from bench.admission import made_keys
from bench.gateway import CHAT, LARGE, PACED
from bench.upstream import Upstream
from moa.router.v1 import openai_service_pb2_grpc
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import logs
from services.common.rpc.client import channel
from services.quota_client import Admission
from services.router.adapters.request_log import RequestLog
from tests.auth.asking import TOKEN
from tests.walks import deltas

RECORD: Final = Path(__file__).with_suffix(".json")
TOLERANCE: Final = 0.1
_BATCHES: Final = 5
_EACH: Final = 15
"""Requests or deltas of a batch. The median of the batches is told: what else a service does falls into few of them."""
_WARM: Final = 10
_ROOT: Final = Path(__file__).parents[1]
_INLINED: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>"})
"""Functions until Python 3.11, none from 3.12 on."""
_WORDS: Final = {"own": "of our own functions", "all": "of all functions", "c": "of C functions, from our own"}
_KINDS: Final = tuple(_WORDS)
CYCLES: Final = "objects in cycles"
"""A row that tells these in place of our own calls. All are gRPC's, some of each call that a server takes."""


class Calls:
    """Counts what runs in the thread that begins it."""

    def __init__(self) -> None:
        self._own = str(_ROOT / "services")
        self._is_own: dict[Any, bool] = {}
        self._counts = [0, 0, 0]

    def begin(self) -> None:
        """Count from now on."""
        self._counts = [0, 0, 0]
        sys.setprofile(self._note)

    def end(self) -> tuple[int, ...]:
        """Stop; return the counts of `_KINDS`."""
        sys.setprofile(None)
        return tuple(self._counts)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        own = self._is_own.get(code)
        if own is None:
            own = self._is_own[code] = code.co_filename.startswith(self._own)
        if event == "call":
            if code.co_name not in _INLINED:
                self._counts[1] += 1
                self._counts[0] += own
        elif event == "c_call":
            self._counts[2] += own


class Steps(paced.Pace):
    """Lets one stream go on by a token whenever it is told to, instead of by the clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._write: Callable[[], None] | None = None
        self._begun = asyncio.Event()

    def add(self, function: Callable[[], None]) -> None:
        """Take a stream."""
        self._write = function
        self._begun.set()

    def discard(self, function: Callable[[], None]) -> None:
        """Let go of it."""
        self._write = None
        self._begun.clear()

    @property
    def going_on(self) -> bool:
        """Whether a stream is not yet at its end."""
        return self._write is not None

    async def step(self) -> None:
        """Have it written to."""
        await self._begun.wait()
        assert self._write is not None
        self._write()


class Caller:
    """Asks the router over gRPC, as the edge does."""

    def __init__(self, link: Any, key: str, steps: Steps) -> None:
        self._stub: Any = openai_service_pb2_grpc.OpenAIServiceStub(link)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._steps = steps

    async def chat(self, body: bytes) -> None:
        """Ask for a whole answer."""
        call = self._call(body)
        data = b""
        while message := await call.read():
            data += message.data
        assert b"Hello!" in data

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Ask for a stream; yield what has a delta written and waits for it. It is read to its end."""
        call = self._call(json.dumps(PACED).encode())

        async def delta() -> None:
            await self._steps.step()
            while b" @" not in (await call.read()).data:
                pass

        yield delta
        while self._steps.going_on:
            await self._steps.step()
        while await call.read():
            pass

    def _call(self, body: bytes) -> Any:
        request = httpbody_pb2.HttpBody(content_type="application/json", data=body)
        return self._stub.CreateChatCompletion(request, metadata=self._metadata, timeout=deltas.TIMEOUT_S)


Counts = dict[str, dict[str, float]]
"""By what was done and who did it: the counts of `_KINDS`."""


async def measured(folder: Path, logged: str = "") -> tuple[Counts, dict[str, float]]:
    """Return what each piece of work takes in each service, in calls and in CPU over that of the fixed work.

    `logged`: what is logged of the requests, `facts` or `content`; empty: nothing is.
    """
    loop = asyncio.get_running_loop()
    steps = Steps(loop)
    async with replica() as (url, address):
        (key,) = await made_keys(url, 1)
        if logged:
            _have_logged(url, content=logged == "content")
        admits: list[Admission] = []

        async def admission(thread: deltas.Thread) -> Admission:
            link = await thread.running.enter_async_context(channel(address))
            made = Admission(link, service_token=TOKEN, journal=folder / "journal")
            await made.start()
            thread.running.push_async_callback(made.stop)
            admits.append(made)
            return made

        async def request_log(thread: deltas.Thread) -> RequestLog:
            link = await thread.running.enter_async_context(channel(address))
            made = RequestLog(link, service_token=TOKEN, holder="bench", known=admits[-1].known)
            thread.running.push_async_callback(made.aclose)
            return made

        server = await loop.create_server(lambda: Upstream(loop, steps), "127.0.0.1", 0)
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            async with (
                deltas.services(folder, base_url, admission, request_log) as (port, router, text),
                channel(f"127.0.0.1:{port}") as link,
            ):
                return await _all(Caller(link, key, steps), {"router": router, "text": text})
        finally:
            server.close()


def _have_logged(url: str, *, content: bool) -> None:
    """Put every account into a team whose requests are logged."""
    with psycopg.connect(url) as link:
        link.execute(
            "insert into teams (id, name, account_id, rules, log_requests, log_content)"
            " select 'team_bench', 'bench', min(id), '[]', true, %s from accounts",
            (content,),
        )
        link.execute("update accounts set team_id = 'team_bench', team_role = 'member'")


async def _all(caller: Caller, threads: Mapping[str, deltas.Thread]) -> tuple[Counts, dict[str, float]]:
    counts: Counts = {}
    cpu: dict[str, float] = {}

    async def note_cycles(name: str, work: Callable[[], Awaitable[None]]) -> None:
        counts[f"{name}, {CYCLES}"] = {**dict.fromkeys(_KINDS, 0.0), "own": await _cycles(work)}

    async def note(name: str, work: Callable[[], Awaitable[None]], counting: bool) -> None:
        found = await (_counted if counting else _timed)(work, threads)
        for thread, values in found.items():
            row = f"{name}, {thread}"
            if counting:
                batches = zip(*values, strict=True)
                counts[row] = {kind: round(median(each), 1) for kind, each in zip(_KINDS, batches, strict=True)}
            else:
                cpu[row] = median(values)

    for counting in (True, False):
        for name, body in (("chat", json.dumps(CHAT).encode()), ("chat of 22 kB", json.dumps(LARGE).encode())):
            for _ in range(_WARM):
                await caller.chat(body)
            await note(name, lambda body=body: caller.chat(body), counting)  # type: ignore[misc]
            if counting:
                await note_cycles(name, lambda body=body: caller.chat(body))  # type: ignore[misc]
        async with caller.stream() as delta:
            for _ in range(_WARM):
                await delta()
            await note("delta", delta, counting)
        if counting:
            async with caller.stream() as delta:
                await note_cycles("delta", delta)
    return counts, cpu


async def _counted(work: Callable[[], Awaitable[None]], threads: Mapping[str, deltas.Thread]) -> dict[str, list[Any]]:
    calls = {name: Calls() for name in threads}
    found: dict[str, list[Any]] = {name: [] for name in threads}
    for _ in range(_BATCHES):
        for name, thread in threads.items():
            await thread.do(deltas.soon(calls[name].begin))
        for _ in range(_EACH):
            await work()
        for name, thread in threads.items():
            found[name].append([count / _EACH for count in await thread.do(deltas.soon(calls[name].end))])
    return found


async def _cycles(work: Callable[[], Awaitable[None]]) -> float:
    """Return how many objects each leaves in cycles, in all of this process: they wait for the collector."""
    found = []
    gc.disable()
    try:
        for _ in range(_BATCHES):
            gc.collect()
            for _ in range(_EACH):
                await work()
            found.append(gc.collect() / _EACH)
    finally:
        gc.enable()
    return round(median(found), 1)


async def _timed(work: Callable[[], Awaitable[None]], threads: Mapping[str, deltas.Thread]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in threads}
    for _ in range(_BATCHES):
        fixed = _fixed_s()
        before = {name: await thread.do(deltas.soon(time.thread_time)) for name, thread in threads.items()}
        for _ in range(_EACH):
            await work()
        for name, thread in threads.items():
            taken = await thread.do(deltas.soon(time.thread_time)) - before[name]
            found[name].append(taken / _EACH / fixed)
    return found


def _fixed_s() -> float:
    """Return the CPU time of a fixed work, of the kinds that requests are: JSON, Protobuf, calls and dicts."""
    began = time.thread_time()
    for _ in range(20):
        body = json.loads(json.dumps(CHAT))
        event = text_pb2.TextEvent(text=text_pb2.TextDelta(text=str(body)))
        message = text_service_pb2.GenerateTextResponse(events=[event] * 5).SerializeToString()
        found = text_service_pb2.GenerateTextResponse.FromString(message)
        assert len({number: each.text.text for number, each in enumerate(found.events)}) == 5
    return time.thread_time() - began


def compared(found: Counts, recorded: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what costs more than is recorded, and what costs so much less that the record is to be made anew."""
    kinds = _KINDS if recorded["python"] == _python() else _KINDS[:1]
    more, less = [], []
    for row, values in found.items():
        for kind in kinds:
            before = recorded["calls"].get(row, {}).get(kind, 0.0)
            what = "" if row.endswith(CYCLES) else f" calls ({_WORDS[kind]})"
            text = f"{row}: {values[kind]:g}{what}, recorded {before:g}"
            if values[kind] > before * (1 + TOLERANCE):
                more.append(text)
            elif values[kind] < before * (1 - TOLERANCE):
                less.append(text)
    return more, less


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def table(counts: Counts, cpu: Mapping[str, float]) -> str:
    """Return the counts for a person."""
    lines = [f"{'':<34}{'own':>10}{'all':>10}{'C':>10}{'CPU ratio':>12}"]
    for row, values in counts.items():
        numbers = "".join(f"{values[kind]:>10.1f}" for kind in _KINDS)
        told = numbers + (f"{cpu[row]:>12.2f}" if row in cpu else "")
        lines.append(f"{row:<34}{told}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and end with 1 where something costs more than is recorded."""
    parser = argparse.ArgumentParser(prog="python -m bench.hot_path", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write what is found into the record")
    parser.add_argument("--logged", choices=("facts", "content"), help="have the requests logged, and compare nothing")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moa-cost-") as folder:
        counts, cpu = uvloop.run(measured(Path(folder), chosen.logged or ""))
    print(table(counts, cpu))
    if chosen.logged:
        return
    if chosen.record:
        RECORD.write_text(json.dumps({"python": _python(), "calls": counts, "cpu": cpu}, indent=2) + "\n")
        return
    more, less = compared(counts, json.loads(RECORD.read_text()))
    for line in less:
        print(f"less than recorded (`make cost ARGS=--record`): {line}")
    for line in more:
        print(f"more than recorded: {line}")
    print(f"{len(more)} counts are more than {TOLERANCE:.0%} above the record")
    sys.exit(1 if more else 0)


if __name__ == "__main__":
    logs.configure("bench", "warning")
    main()
