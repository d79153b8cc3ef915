"""How long a warm start of `make run` takes until the first chat is answered, what it costs, and what stays in memory.

`python -m bench.starting` starts a gateway that is set up already, over an upstream of its own, with one router and one
of Envoy's, again and again; `--beside FOLDER` takes turns with another checkout of this repository, whose protocols are
generated. The first round of each sets it up, and is not counted. Linux only: memory is what /proc says of shared and
private pages, of all processes (`bench.running`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from bench.gateway import CHAT, upstream
from bench.running import MOST_S, REPOSITORY, Gateway, running

SETTLED_S: Final = 30.0
"""After the first answer so much time passes before memory is looked at: sessions of the database are ended that only a
start needs."""


@dataclass
class Start:
    """One start."""

    ready_s: float
    """Until it says that it is ready."""
    answered_s: float
    """Until the first chat after that was answered."""
    cpu_s: dict[str, float]
    """By process until then, with those that have ended."""
    mb: dict[str, float] = field(default_factory=dict)
    """By process, a while later."""


def _ask(gateway: Gateway) -> None:
    """Have a chat answered. Raises OSError where it is refused."""
    request = urllib.request.Request(  # noqa: S310  # our own address
        f"{gateway.url}/v1/chat/completions",
        json.dumps(CHAT).encode(),
        {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=MOST_S) as answer:  # noqa: S310  # our own address
        answer.read()


def started(checkout: Path, home: Path, direct: str) -> Start:
    """Start a checkout's gateway in its state folder, measure, and stop it."""
    with running(home, direct, checkout=checkout) as gateway:
        _ask(gateway)
        answered_s = time.monotonic() - gateway.began
        result = Start(gateway.ready_s, answered_s, gateway.meter.cpu_s(ended=True))
        time.sleep(SETTLED_S)
        result.mb = gateway.meter.memory_mb()
        return result


def _table(what: str, each: Sequence[Mapping[str, float]], digits: int) -> None:
    _row(what, [sum(one.values()) for one in each], digits)
    for name in sorted(each[-1], key=lambda name: -each[-1][name]):
        _row(f"  {name}", [one.get(name, 0.0) for one in each], digits)


def _row(name: str, values: Sequence[float], digits: int = 2) -> None:
    print(f"  {name:<34}{median(values):>8.{digits}f}   {' '.join(f'{value:.{digits}f}' for value in sorted(values))}")


def main() -> None:
    """Print medians, and all values."""
    parser = argparse.ArgumentParser(prog="python -m bench.starting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how many starts are counted")
    parser.add_argument("--beside", type=Path, action="append", default=[], help="another checkout")
    chosen = parser.parse_args()
    checkouts = [REPOSITORY, *(path.resolve() for path in chosen.beside)]
    found: dict[Path, list[Start]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder, upstream() as direct:
        for number in range(chosen.rounds + 1):
            for at, checkout in enumerate(checkouts):
                home = Path(folder) / str(at)
                home.mkdir(exist_ok=True)
                start = started(checkout, home, direct)
                if number:
                    found[checkout].append(start)
    for checkout, starts in found.items():
        print(f"{checkout.name} (load average {os.getloadavg()[0]:.0f})")
        _row("until it is ready, s", [start.ready_s for start in starts])
        _row("until the first answer, s", [start.answered_s for start in starts])
        _table("CPU until then, s", [start.cpu_s for start in starts], 2)
        _table("memory (PSS), MB", [start.mb for start in starts], 1)


if __name__ == "__main__":
    main()
