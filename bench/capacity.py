"""Measure what docs/capacity.md reckons with: `make bench-capacity` (ten minutes on a busy machine).

A gateway over the cheap upstream, with the toys: CPU of a chat, a stream, an image and a task by service, memory of an
open stream, transactions and WAL of the database, and the gateway on one core and on two, by turns. Rates say little on
a machine that has other work; CPU says the same there, nearly.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
import psycopg

from bench import load
from bench.gateway import CHAT, PACED, STREAM, upstream
from bench.target import Meter
from deploy.local.stack import Stack, StackError

_NAMES: Final = ("auth", "text", "image", "inference", "router", "tasks", "edge")
_ROUNDS: Final = 5
_START_S: Final = 300.0
"""How long the gateway may take to start: a machine that is measured may be busy."""
_SECONDS: Final = 3.0
_REST_S: Final = 5.0
_OPEN: Final = 200
_STREAMED_S: Final = 8.0
_PICTURES: Final = 10
_WORKED_BY: Final = ("edge", "router", "text", "image", "inference", "tasks", "auth", "postgres")


class Gateway:
    """A gateway that runs, and what its processes used."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.headers = {"Authorization": f"Bearer {stack.api_key}"}
        self.pids = {name: stack.pid(name) for name in (*_NAMES, "postgres")}
        self.meter = Meter(self.pids)
        self._link = psycopg.connect(stack.database_url, autocommit=True)

    @property
    def url(self) -> str:
        """Where chats are asked."""
        return f"{self._stack.url}/v1/chat/completions"

    def ask(self, path: str, body: Mapping[str, Any], **more: str) -> Any:
        """Return the answer to one request."""
        head = {**self.headers, "X-API-Key": self._stack.api_key, "Content-Type": "application/json", **more}
        asked = urllib.request.Request(self._stack.url + path, msgspec.json.encode(body), head)  # noqa: S310  # ours
        with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read())

    def used(self, work: Callable[[], int]) -> dict[str, float]:
        """Return what each of so many pieces of work took: microseconds by process, transactions and bytes of WAL."""
        before, books = self.meter.cpu_s(), self._books()
        count = max(1, work())
        # What is booked follows within a second.
        time.sleep(1.5)
        after, booked = self.meter.cpu_s(), self._books()
        cost = {name: 1e6 * (after[name] - before[name]) / count for name in after}
        return {**cost, **{name: (booked[name] - books[name]) / count for name in booked}}

    def onto(self, cores: Iterable[int]) -> None:
        """Let all threads of all processes run on these cores alone."""
        for pid in filter(None, self.pids.values()):
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                # One that has ended meanwhile, as connections of PostgreSQL do, has no threads.
                with contextlib.suppress(FileNotFoundError):
                    for thread in Path(f"/proc/{process.pid}/task").iterdir():
                        with contextlib.suppress(ProcessLookupError):
                            os.sched_setaffinity(int(thread.name), cores)

    def _books(self) -> dict[str, float]:
        row = self._link.execute(
            "select xact_commit + xact_rollback, pg_current_wal_lsn() - '0/0'::pg_lsn from pg_stat_database"
            " where datname = current_database()"
        ).fetchone()
        assert row is not None
        return {"transactions": float(row[0]), "WAL bytes": float(row[1])}


def main() -> None:
    """Measure and print."""
    parts: dict[str, Callable[[Gateway, int], None]] = {"work": _work, "memory": _memory, "cores": _cores}
    parser = argparse.ArgumentParser(prog="make bench-capacity", description=__doc__)
    parser.add_argument("--only", choices=list(parts), action="append", help="measure this part alone")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each is measured (%(default)s)")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be 1 at least")
    chosen = given.only or list(parts)
    with tempfile.TemporaryDirectory(prefix="moa-capacity-") as folder, upstream() as direct:
        environment = {"OPENAI_BASE_URL": direct, "OPENAI_API_KEY": "sk-bench", "MOA_LOG_LEVEL": "warning"}
        stack = Stack(Path(folder), environment=environment, processes=_NAMES)
        try:
            stack.start(wait_s=_START_S)
        except StackError as error:
            raise SystemExit(f"the gateway that is to be measured does not start: {error}") from None
        with contextlib.ExitStack() as ending:
            ending.callback(stack.stop)
            gateway = Gateway(stack)
            idle = gateway.used(_rest)
            print(
                f"idle, a second: {shown({name: value / (_REST_S + 1.5) for name, value in idle.items()})}", flush=True
            )
            for name in chosen:
                parts[name](gateway, given.rounds)
    print(f"load average {os.getloadavg()[0]:.0f}, {os.cpu_count()} cores")


def _rest() -> int:
    time.sleep(_REST_S)
    return 1


def _work(gateway: Gateway, rounds: int) -> None:
    def asked(body: Mapping[str, Any]) -> int:
        return load.run(gateway.url, body, headers=gateway.headers, seconds=_SECONDS).requests

    def images() -> int:
        body = {"provider": "local-image", "model_id": "moa-tiny-image", "prompt": "a red circle", "seed": 7}
        for _ in range(_PICTURES):
            gateway.ask("/create/image", body)
        return _PICTURES

    def tasks() -> int:
        body = {"input": {"prompt": "a blue square"}}
        for _ in range(_PICTURES):
            gateway.ask("/v1/models/local/moa-tiny-image/predictions", body, Prefer="wait")
        return _PICTURES

    works: dict[str, Callable[[], int]] = {
        "a chat": lambda: asked(CHAT),
        "a stream of 200 tokens, as fast as it comes": lambda: asked(STREAM),
        "an image": images,
        "a prediction, which is a task with an image": tasks,
    }
    for name, work in works.items():
        work()
        found = [gateway.used(work) for _ in range(rounds)]
        print(f"{name}: {shown({key: statistics.median(one[key] for one in found) for key in found[0]})}", flush=True)


def _memory(gateway: Gateway, _rounds: int) -> None:
    """Compare the memory of all processes with many open streams and without, after as many were open before."""
    found: list[dict[str, float]] = []
    for _ in range(2):
        before = gateway.meter.memory_mb()
        streams = threading.Thread(
            target=load.run,
            args=(gateway.url, PACED),
            kwargs={"headers": gateway.headers, "connections": _OPEN, "seconds": _STREAMED_S},
        )
        streams.start()
        time.sleep(_STREAMED_S * 0.7)
        during = gateway.meter.memory_mb()
        streams.join()
        found.append({name: (during[name] - before[name]) * 2**20 / _OPEN for name in before})
    for name, one in zip(("first", "second"), found, strict=True):
        told = ", ".join(f"{process} {size / 1024:.0f}" for process, size in one.items())
        print(f"KiB of an open stream, {_OPEN} for the {name} time: {told}; in all {sum(one.values()) / 1024:.0f}")


def _cores(gateway: Gateway, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for name, cores in (("one core", (0,)), ("two cores", (0, 1))):
            gateway.onto(cores)
            own = time.process_time()
            before = sum(gateway.meter.cpu_s().values())
            result = load.run(gateway.url, CHAT, headers=gateway.headers, seconds=_SECONDS)
            spent = sum(gateway.meter.cpu_s().values()) - before
            if not result.requests:
                raise SystemExit(f"no chat was answered within {_SECONDS:g} s on {name}: the machine is too busy")
            found[name].append(
                {
                    "requests a second": result.per_second,
                    "CPU of each, us": 1e6 * spent / result.requests,
                    "cores used": spent / result.seconds,
                    "generator's cores": (time.process_time() - own) / result.seconds,
                    "p50 ms": result.percentile(0.5),
                }
            )
    for name, each in found.items():
        told = ", ".join(f"{key} {statistics.median(one[key] for one in each):,.2f}" for key in each[0])
        print(f"the gateway on {name}: {told}", flush=True)


def shown(values: Mapping[str, float]) -> str:
    """Return what a piece of work took, in words."""
    cpu = {name: values[name] for name in _WORKED_BY if name in values}
    parts = ", ".join(f"{name} {value:,.0f}" for name, value in cpu.items())
    books = f"{values['transactions']:.2f} transactions, {values['WAL bytes']:,.0f} bytes of WAL"
    return f"{sum(cpu.values()):,.0f} us of CPU ({parts}), {books}"


if __name__ == "__main__":
    main()
