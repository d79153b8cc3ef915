"""Measure what a gateway does while nobody calls, with as many workers as `make run` starts: `python -m bench.idle`.

Wake-ups are the voluntary context switches of all threads, and their time is what the scheduler counted, from /proc, so
Linux only. The fetching of models is off.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.local.stack import Stack
from deploy.local.topology import DATABASE, EDGE, EDGE_PROCESSES, LARGE_ROUTER, LARGE_TEXT, ROUTER

SETTLED_S: Final = 30.0
"""After a start so much time passes first: caches are filled, what was leased goes back."""


@dataclass(frozen=True)
class Idle:
    """What a process did, its children included."""

    name: str
    processes: int
    wakes_per_s: float
    """Of all of them together."""
    most_wakes_per_s: float
    """Of the one that woke up most."""
    cpu_s_per_minute: float


def measured(stack: Stack, seconds: float) -> list[Idle]:
    """Return what each process of a gateway did in so many seconds, PostgreSQL's processes as one."""
    families = {name: _family(stack.pid(name)) for name in (*stack.names, DATABASE)}
    before = {pid: _spent(pid) for family in families.values() for pid in family}
    began = time.monotonic()
    time.sleep(seconds)
    taken = time.monotonic() - began
    found = []
    for name, family in families.items():
        wakes, cpu_s = [0.0], 0.0
        for pid in family:
            if psutil.pid_exists(pid):
                now = _spent(pid)
                wakes.append((now[0] - before[pid][0]) / taken)
                cpu_s += now[1] - before[pid][1]
        found.append(Idle(name, len(family), sum(wakes), max(wakes), cpu_s * 60 / taken))
    return found


def _family(pid: int | None) -> list[int]:
    if pid is None:
        return []
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def _spent(pid: int) -> tuple[int, float]:
    """Return the wake-ups of a process's threads so far, and their CPU seconds.

    Not by the clock's ticks: whoever works for a millisecond at a time is seldom seen by them.
    """
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    nanoseconds = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
    return sum(map(_switches, threads)), nanoseconds / 1e9


def _switches(thread: Path) -> int:
    lines = (thread / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="moa-idle-") as folder,
        Stack(
            Path(folder),
            durable=False,
            postpones=True,
            environment={"MOA_FETCH": "never"},
            workers={
                ROUTER.name: ROUTER.workers,
                EDGE.name: EDGE_PROCESSES,
                LARGE_ROUTER.name: 1,
                LARGE_TEXT.name: 1,
            },
        ) as stack,
    ):
        time.sleep(SETTLED_S)
        found = measured(stack, chosen.seconds)
    print(f"{'process':<12}{'processes':>10}{'wake-ups/s':>12}{'at most':>12}{'CPU s/min':>12}")
    wakes, cpu_s = sum(idle.wakes_per_s for idle in found), sum(idle.cpu_s_per_minute for idle in found)
    most = max(idle.most_wakes_per_s for idle in found)
    for idle in [*found, Idle("all", sum(idle.processes for idle in found), wakes, most, cpu_s)]:
        print(
            f"{idle.name:<12}{idle.processes:>10}{idle.wakes_per_s:>12.1f}{idle.most_wakes_per_s:>12.1f}"
            f"{idle.cpu_s_per_minute:>12.2f}"
        )


if __name__ == "__main__":
    main()
