"""`make bench-targets`: the goals for speed as one table, each row beside what its peers take in the same run.

The gateway as `make run` starts it with all its services, with one router, with two, and with the text service in its
router's process; what it takes is told of all its processes, the launcher included. Portkey and LiteLLM where
`make bench-peers` has installed them. All stand at once, and are asked in turns, as in `make bench`; of paced streams
one run each. Six minutes on two cores that have nothing else to do; elsewhere ratios say more than times. Writes
`build/bench/targets.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import gateway, peers
from bench.running import running
from bench.target import Target

OUT: Final = Path("build/bench/targets.json")
LAG_MS: Final = 30.0
"""How late the latest of a hundred tokens may be, for streams to count as kept up with."""
MANY: Final = (300, 350, 400)
"""Paced streams at once, beside those of every bench. LiteLLM ends below."""
FIVE: Final = ("auth", "text", "router", "edge", "postgres")
"""What a gateway needs for chats; the rest waits for images, tasks and large requests."""
MOA, TWO, ONE = "moa", "moa, 2 routers", "one process"
_GATEWAYS: Final[Mapping[str, Mapping[str, str]]] = {
    MOA: {},
    TWO: {"MOA_ROUTERS": "2"},
    ONE: {"MOA_COLOCATE": "text"},
}

Found = Mapping[str, Mapping[str, float]]
"""What was measured, by target and measure."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        what: What it tells.
        value: Returns it for a target; None where that has none.
        goals: What of the gateway is the least, what its aim, and what its aim with the text service in the router's
            process; empty: none are set.
    """

    what: str
    value: Callable[[Found, str], float | None]
    goals: str = ""


def told(measure: str, factor: float = 1.0) -> Callable[[Found, str], float | None]:
    """Return what gives a measure of a target, times a factor."""
    return lambda found, name: found[name][measure] * factor if measure in found[name] else None


def over(other: str, measure: str) -> Callable[[Found, str], float | None]:
    """Return what gives a measure of a target, divided by another target's."""

    def value(found: Found, name: str) -> float | None:
        mine, its = found[name].get(measure), found.get(other, {}).get(measure)
        return None if mine is None or its is None else mine / its

    return value


def kept_up(found: Found, name: str) -> float | None:
    """Return at how many paced streams at once, of those that were tried, tokens were in time; 0: at none."""
    tried = [n for n in (*gateway.STREAMS, *MANY) if f"paced_{n}_lag_p99_ms" in found[name]]
    good = [n for n in tried if found[name][f"paced_{n}_lag_p99_ms"] <= LAG_MS and not _cut(found, name, n)]
    return float(max(good, default=0)) if tried else None


def _cut(found: Found, name: str, streams: int) -> bool:
    return bool(found[name].get(f"paced_{streams}_unfinished"))


def scaled(found: Found, name: str) -> float | None:
    """Return requests a second over those with one router."""
    return found[name]["requests_per_s"] / found[MOA]["requests_per_s"] if name == TWO else None


ROWS: Final = (
    Row("requests/s ÷ Portkey's, 16 at once", over("portkey", "requests_per_s"), "1.0 1.2 1.5"),
    Row("requests/s ÷ LiteLLM's", over("litellm", "requests_per_s"), "11 13 16"),
    Row("requests/s", told("requests_per_s")),
    Row("requests/s with two routers ÷ with one", scaled),
    Row("CPU of a request, ms", told("cpu_us_per_request", 1e-3), "1.0 0.85 0.7"),
    Row("22 kB: requests/s ÷ Portkey's", over("portkey", "requests_22kb_per_s"), "1.0 1.2 1.4"),
    Row("22 kB: CPU of a request, ms", told("cpu_us_per_request_22kb", 1e-3)),
    Row("added p50, one at a time, ms", told("added_p50_ms"), "1.2 0.8 0.7"),
    Row("20 paced streams: CPU of an event, us", told("paced_20_cpu_us_per_event"), "400 350 280"),
    Row("200 paced streams: CPU of an event, us", told("paced_200_cpu_us_per_event"), "190 160 120"),
    Row("200: lag of a token p99, ms", told("paced_200_lag_p99_ms")),
    Row("200: lag p99 ÷ Portkey's", over("portkey", "paced_200_lag_p99_ms"), "2.0 1.5 1.0"),
    Row("350: lag of a token p99, ms", told("paced_350_lag_p99_ms")),
    Row("400: lag of a token p50, ms", told("paced_400_lag_p50_ms")),
    Row("400: lag of a token p99, ms", told("paced_400_lag_p99_ms")),
    Row("400: tokens a second, of 10,000", told("paced_400_tokens_per_s")),
    Row(f"paced streams with lag p99 <= {LAG_MS:g} ms (of 20, 200, 300, 350, 400)", kept_up, "350 450 600"),
    Row("CPU-seconds of a million tokens, 200 paced streams", told("paced_200_cpu_us_per_event")),
    Row("CPU-seconds of a million tokens as fast as they go", told("cpu_us_per_event")),
    Row("memory (PSS) of auth, text, router, edge, PostgreSQL, MB", told("memory_of_five_mb"), "280 200 180"),
    Row("memory (PSS) of everything, MB", told("memory_mb")),
)


@contextmanager
def _gateway(name: str, direct: str) -> Iterator[Target]:
    """Run a gateway over the upstream of that base URL."""
    with (
        tempfile.TemporaryDirectory(prefix="moa-bench-") as folder,
        running(Path(folder), direct, environment=_GATEWAYS[name]) as started,
    ):
        yield started.target(name)


def measure(targets: Sequence[Target], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return what is found of each target, the upstream itself first."""
    found, asked = gateway.measure(targets, rounds, seconds)
    for streams in MANY:
        for name, values in asked.each(partial(_many, streams=streams)):
            found[name] |= {measure: round(value, 3) for measure, value in values.items()}
    direct, *others = targets
    for target in others:
        each = found[target.name]
        memory = target.meter.memory_mb()
        each["memory_mb"] = round(sum(memory.values()), 1)
        if target.name in _GATEWAYS:
            each["memory_of_five_mb"] = round(sum(mb for name, mb in memory.items() if _part(name) in FIVE), 1)
        if "p50_ms" in each:
            each["added_p50_ms"] = round(each["p50_ms"] - found[direct.name]["p50_ms"], 3)
    return found


def _part(name: str) -> str:
    """Return what a process is, of the name that it has among several alike."""
    return name.partition("-")[0]


def _many(target: Target, streams: int) -> dict[str, float]:
    return {} if target.name == "litellm" else gateway.trickled(target, streams)


def table(found: Found) -> str:
    """Return the table: a line for each row, a column for each target."""
    names = [name for name in found if name != "direct"]
    lines = [f"{'':<62}" + "".join(f"{name:>16}" for name in (*names, "at least", "aim", "one process"))]
    for row in ROWS:
        values = [row.value(found, name) for name in names]
        cells = ["" if value is None else f"{value:,.2f}" for value in values]
        lines.append(f"{row.what:<62}" + "".join(f"{cell:>16}" for cell in (*cells, *row.goals.split())))
    return "\n".join(line.rstrip() for line in lines)


def bench(rounds: int, seconds: float, *, beside: bool = True) -> dict[str, Any]:
    """Start everything, measure, stop everything; `beside`: with the peers that are installed."""
    with ExitStack() as running:
        direct = running.enter_context(gateway.upstream())
        targets = [Target(name="direct", base_url=direct)]
        targets += [running.enter_context(_gateway(name, direct)) for name in _GATEWAYS]
        targets += running.enter_context(peers.running(direct, wanted=beside))
        load = os.getloadavg()[0]
        return {"cores": os.cpu_count(), "load": load, "results": measure(targets, rounds, seconds)}


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--alone", action="store_true", help="without the peers that are installed")
    options = parser.parse_args()
    # Whoever ends the bench ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = bench(options.rounds, options.seconds, beside=not options.alone)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report["results"]))
    print(f"{report['cores']} cores, load average {report['load']:.1f} at the beginning; written to {OUT}")


if __name__ == "__main__":
    main()
