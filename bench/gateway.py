"""`make bench`: what the gateway adds to a chat, against the same upstream called directly, and beside its peers.

Each round measures all in turn, the peers where `make bench-peers` has installed them; the medians over the rounds are
told, and of paced streams one run each. The gateway is one that `make run` has started, with one router and all its
services, and its memory and CPU are those of all its processes. Goals stand beside the results; they were set for two
cores that the load generator and the upstream share. Keys, permissions, quotas and the ledger are on in every figure of
the gateway; its peers have none of them. Writes `build/bench/gateway.json`.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import load, paced, peers
from bench.running import running
from bench.target import Target
from bench.upstream import MODEL, TOKENS


def large() -> dict[str, Any]:
    """Return a chat of 22 kB: 24 turns and 8 tools."""
    words = "The quick brown fox jumps over the lazy dog while five boxing wizards watch. " * 9
    turns = [{"role": "user" if n % 2 == 0 else "assistant", "content": f"{n}: {words}"} for n in range(24)]
    fields = {
        name: {"type": "string", "description": f"The {name} of what is looked for, as its owner wrote it."}
        for name in ("title", "author", "place", "language")
    }
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"look_up_{n}",
                "description": "Look something up in a catalogue.",
                "parameters": {"type": "object", "properties": fields, "required": list(fields)},
            },
        }
        for n in range(8)
    ]
    return {"model": MODEL, "messages": turns[:-1], "tools": tools, "max_tokens": 256}


CHAT: Mapping[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 256}
STREAM = {**CHAT, "stream": True}
PACED = {**STREAM, "messages": [{"role": "user", "content": f"Say hello {paced.WORD.decode()}."}]}
LARGE = large()
STREAMS = (20, 200)
"""Paced streams at once."""
PACED_S = 6.0
"""Streams begin so long; one lasts four seconds."""
SPREAD_S = 1.5
WARM_S = 0.7
WARM_TRIES = 3
OUT = Path("build/bench/gateway.json")

GOALS = {
    "requests_per_s": (">=", 1300.0),
    "added_p50_ms": ("<=", 2.0),
    "streams_per_s": (">=", 100.0),
    "events_per_s": (">=", 20_000.0),
    "memory_mb": ("<=", 280.0),
    "ready_s": ("<=", 2.5),
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


class NotGood(Exception):
    """A target did not answer all that it was asked. The message says what it did."""


class Asked:
    """Asks targets until one fails: a peer is asked no more then, and what else was measured is told.

    Anybody else's failure is raised as SystemExit.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._left = list(targets)

    def each(self, measured: Callable[[Target], Mapping[str, float] | None]) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield what is measured of each that has not failed, by its name."""
        for target in tuple(self._left):
            try:
                yield target.name, dict(measured(target) or {})
            except NotGood as why:
                if target.name not in peers.NAMES:
                    raise SystemExit(f"{target.name}: {why}") from None
                self._left.remove(target)
                print(f"{target.name} is left out from here on: {why}", file=sys.stderr)


def measure(targets: Sequence[Target], rounds: int, seconds: float) -> tuple[dict[str, dict[str, float]], Asked]:
    """Ask each in turn, round by round; return their medians, and what asks those that have not failed."""
    found: dict[str, dict[str, list[float]]] = {target.name: {} for target in targets}
    asked = Asked(targets)
    for _ in asked.each(_warm):
        pass
    for _ in range(rounds):
        for target, values in asked.each(lambda target: _round(target, seconds)):
            for name, value in values.items():
                found[target].setdefault(name, []).append(value)
    for streams in STREAMS:
        for target, values in asked.each(partial(trickled, streams=streams)):
            found[target] |= {name: [value] for name, value in values.items()}
    medians = {
        target: {name: round(median(values), 3) for name, values in each.items()} for target, each in found.items()
    }
    return medians, asked


def _warm(target: Target) -> None:
    """Have a target answer until it does in time: the first answers of some take longer than is waited for them.

    One at first: several at once, of a process that is still loading, would wait for each other.
    """
    for body in (CHAT, STREAM):
        for connections in (1, 16):
            for _ in range(WARM_TRIES):
                result = load.run(target.url, body, headers=target.headers, connections=connections, seconds=WARM_S)
                if not result.unfinished:
                    break
            _checked(result)


def _round(target: Target, seconds: float) -> dict[str, float]:
    took: dict[str, float] = {}

    def asked(body: Mapping[str, Any], share: float, connections: int = 16) -> tuple[load.Result, dict[str, float]]:
        before = target.meter.cpu_s()
        result = load.run(target.url, body, headers=target.headers, connections=connections, seconds=seconds * share)
        # Unlike the rates, what a request costs says the same on a machine that has other work too.
        return _checked(result), _used(target, before)

    result, used = asked(CHAT, 1)
    took |= {"requests_per_s": result.per_second, **_each("cpu_us_per_request", used, result.requests)}
    took |= {"p50_16_ms": result.percentile(0.5), "p99_16_ms": result.percentile(0.99)}
    result, used = asked(LARGE, 0.5)
    took |= {"requests_22kb_per_s": result.per_second, **_each("cpu_us_per_request_22kb", used, result.requests)}
    result, _ = asked(CHAT, 0.5, connections=1)
    took["p50_ms"] = result.percentile(0.5)
    result, used = asked(STREAM, 1)
    if result.events < result.requests * TOKENS:
        raise NotGood(f"streams were cut: {result.events} events in {result.requests} streams")
    took |= {"streams_per_s": result.per_second, "events_per_s": result.events_per_second}
    took |= {"first_event_ms": 1000 * median(result.first), **_each("cpu_us_per_event", used, result.events)}
    return took


def trickled(target: Target, streams: int) -> dict[str, float]:
    """Measure streams that trickle as models write: how late a token is, and what it costs."""
    before = target.meter.cpu_s()
    result = load.run(
        target.url, PACED, headers=target.headers, connections=streams, seconds=PACED_S, spread_s=SPREAD_S
    )
    used = _used(target, before)
    if result.broken or set(result.statuses) != {200} or not result.lags:
        raise NotGood(f"not every paced stream was good: {dict(result.statuses)}, {result.broken} broken")
    if len(result.lags) < result.requests * paced.TOKENS:
        raise NotGood(f"of {result.requests} paced streams came {len(result.lags)} tokens")
    lags = {"lag_p50_ms": result.lag(0.5), "lag_p99_ms": result.lag(0.99)}
    # Who cannot keep up is cut off, and told by how many streams that were.
    lags |= {"unfinished": result.unfinished} if result.unfinished else {}
    values = {
        **lags,
        "tokens_per_s": len(result.lags) / result.seconds,
        **_each("cpu_us_per_event", used, result.events),
    }
    return {f"paced_{streams}_{name}": value for name, value in values.items()}


def _used(target: Target, before: Mapping[str, float]) -> dict[str, float]:
    return {name: after - before.get(name, 0.0) for name, after in target.meter.cpu_s().items()}


def _each(name: str, used: Mapping[str, float], count: int) -> dict[str, float]:
    """Return microseconds of each: of all processes, and of each where there are several; none of who has none."""
    if not used:
        return {}
    parts = {f"{name}_{process}": 1e6 * spent / count for process, spent in used.items()} if len(used) > 1 else {}
    return {name: 1e6 * sum(used.values()) / count, **parts}


def _checked(result: load.Result) -> load.Result:
    if not result.clean or not result.requests:
        raise NotGood(
            f"not every answer was good: {dict(result.statuses)}, {result.broken} broken connections, "
            f"{result.unfinished} that were waited for no longer"
        )
    return result


def bench(rounds: int, seconds: float, *, beside: bool = True) -> dict[str, Any]:
    """Start everything, measure, stop everything."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder, upstream() as direct:
        with running(Path(folder), direct):
            pass  # the first start makes the database and the first account
        with ExitStack() as started:
            gateway = started.enter_context(running(Path(folder), direct))
            others = started.enter_context(peers.running(direct, wanted=beside))
            moa = gateway.target("moa")
            targets = [Target(name="direct", base_url=direct), moa, *others]
            results, _ = measure(targets, rounds, seconds)
            memory = {target.name: target.meter.memory_mb() for target in targets}
    for target in targets[1:]:
        found = results[target.name]
        found["memory_mb"] = round(sum(memory[target.name].values()), 1)
        if "p50_ms" in found:
            found["added_p50_ms"] = round(found["p50_ms"] - results["direct"]["p50_ms"], 3)
    results["moa"]["ready_s"] = round(gateway.ready_s, 2)
    return {
        "machine": {
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "results": results,
        "memory_mb": memory["moa"],
        "goals": {name: f"{sign} {bound:g}" for name, (sign, bound) in GOALS.items()},
    }


def table(report: Mapping[str, Any]) -> str:
    """Return the report for a person: a line for each measure, a column for each target."""
    results = report["results"]
    lines = [f"{'':<36}" + "".join(f"{name:>12}" for name in results)]
    for measure in results["moa"]:
        cells = (f"{each[measure]:>12,.2f}" if measure in each else f"{'':>12}" for each in results.values())
        lines.append(f"{measure:<36}{''.join(cells)}   {report['goals'].get(measure, '')}".rstrip())
    lines.append("resident memory, MB: " + ", ".join(f"{name} {mb:g}" for name, mb in report["memory_mb"].items()))
    lines.append(f"{report['machine']['cores']} cores, load average {report['machine']['load']:.1f} at the end")
    if len(results) == 2:
        lines.append("`make bench-peers` installs others to measure beside it")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--alone", action="store_true", help="without the peers that are installed")
    options = parser.parse_args()
    # Whoever ends the bench ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = bench(options.rounds, options.seconds, beside=not options.alone)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
