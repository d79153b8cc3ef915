"""`make bench`: what the gateway adds to a chat, against the same upstream called directly.

Each round measures both, in turn; the medians over the rounds are told. Goals stand beside the results; they were set
for two cores that the load generator and the upstream share. Writes `build/bench/gateway.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench import load
from bench.upstream import MODEL, TOKENS
from deploy.local.stack import Stack

CHAT: Mapping[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 256}
STREAM = {**CHAT, "stream": True}
OUT = Path("build/bench/gateway.json")

GOALS = {
    "requests_per_s": (">=", 1300.0),
    "added_p50_ms": ("<=", 2.0),
    "streams_per_s": (">=", 100.0),
    "events_per_s": (">=", 20_000.0),
    "memory_mb": ("<=", 450.0),
    "ready_s": ("<=", 6.0),
}


@contextmanager
def upstream() -> Iterator[str]:
    """Run the cheap upstream; give its base URL."""
    process = subprocess.Popen([sys.executable, "-m", "bench.upstream"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


class Meter:
    """Memory and processor time of the gateway's processes, children included."""

    def __init__(self, pids: Mapping[str, int | None]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items() if pid is not None}

    def memory_mb(self) -> dict[str, float]:
        """Return each process's resident memory. What several share (PostgreSQL's buffers) is counted once."""
        return {name: round(sum(map(_resident, _family(process))) / 2**20, 1) for name, process in self._items()}

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time that each has used."""
        return {
            name: sum(p.cpu_times().user + p.cpu_times().system for p in _family(process))
            for name, process in self._items()
        }

    def _items(self) -> Iterable[tuple[str, psutil.Process]]:
        return self._processes.items()


def _resident(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.rss))


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def measure(direct: str, through: str, key: str, meter: Meter, rounds: int, seconds: float) -> dict[str, float]:
    """Ask both, round by round; give the medians."""
    auth = {"Authorization": f"Bearer {key}"}
    path = "/chat/completions"
    found: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            found.setdefault(name, []).append(value)

    for warm in (CHAT, STREAM):
        _checked(load.run(through + path, warm, headers=auth, connections=16, seconds=0.7))
    for _ in range(rounds):
        plain = _checked(load.run(direct + path, CHAT, connections=16, seconds=seconds / 2))
        before = meter.cpu_s()
        gated = _checked(load.run(through + path, CHAT, headers=auth, connections=16, seconds=seconds))
        # Unlike the rates, what a request costs says the same on a machine that has other work too.
        used = {name: after - before[name] for name, after in meter.cpu_s().items()}
        note(cpu_us_per_request=1e6 * sum(used.values()) / gated.requests)
        note(**{f"cpu_us_{name}": 1e6 * spent / gated.requests for name, spent in used.items()})
        note(direct_requests_per_s=plain.per_second, requests_per_s=gated.per_second)
        note(
            ratio=gated.per_second / plain.per_second, p50_16_ms=gated.percentile(0.5), p99_16_ms=gated.percentile(0.99)
        )
        plain = _checked(load.run(direct + path, CHAT, connections=1, seconds=seconds / 4))
        gated = _checked(load.run(through + path, CHAT, headers=auth, connections=1, seconds=seconds / 2))
        note(direct_p50_ms=plain.percentile(0.5), p50_ms=gated.percentile(0.5))
        note(added_p50_ms=gated.percentile(0.5) - plain.percentile(0.5))
        plain = _checked(load.run(direct + path, STREAM, connections=16, seconds=seconds / 2))
        before = meter.cpu_s()
        gated = _checked(load.run(through + path, STREAM, headers=auth, connections=16, seconds=seconds))
        note(cpu_us_per_event=1e6 * (sum(meter.cpu_s().values()) - sum(before.values())) / gated.events)
        note(direct_streams_per_s=plain.per_second, streams_per_s=gated.per_second)
        note(stream_ratio=gated.per_second / plain.per_second, first_event_ms=1000 * median(gated.first))
        note(direct_events_per_s=plain.events_per_second, events_per_s=gated.events_per_second)
        if gated.events < gated.requests * TOKENS:
            raise SystemExit(f"streams were cut: {gated.events} events in {gated.requests} streams")
    return {name: round(median(values), 3) for name, values in found.items()}


def _checked(result: load.Result) -> load.Result:
    if not result.clean or not result.requests:
        raise SystemExit(f"not every answer was good: {dict(result.statuses)}, {result.broken} broken connections")
    return result


def bench(rounds: int, seconds: float) -> dict[str, Any]:
    """Start everything, measure, stop everything."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder, upstream() as direct:
        environment = {"OPENAI_BASE_URL": direct, "OPENAI_API_KEY": "sk-bench", "MOA_LOG_LEVEL": "warning"}
        names = ("auth", "text", "router", "edge")
        with Stack(Path(folder), environment=environment, processes=names):
            pass  # the first start makes the database and the first account
        began = time.perf_counter()
        with Stack(Path(folder), environment=environment, processes=names) as stack:
            ready_s = time.perf_counter() - began
            meter = Meter({name: stack.pid(name) for name in (*names, "postgres")})
            results = measure(direct, f"{stack.url}/v1", stack.api_key, meter, rounds, seconds)
            memory = meter.memory_mb()
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "results": {**results, "memory_mb": round(sum(memory.values()), 1), "ready_s": round(ready_s, 2)},
        "memory_mb": memory,
        "goals": {name: f"{sign} {bound:g}" for name, (sign, bound) in GOALS.items()},
    }


def table(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    lines = []
    for name, value in report["results"].items():
        goal = report["goals"].get(name, "")
        lines.append(f"{name:<24}{value:>12,.2f}   {goal}")
    lines.append("resident memory, MB: " + ", ".join(f"{name} {mb:g}" for name, mb in report["memory_mb"].items()))
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    options = parser.parse_args()
    # Whoever ends the bench ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = bench(options.rounds, options.seconds)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
