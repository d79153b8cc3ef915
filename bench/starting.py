"""How long a warm start of `make run` takes until the first chat is answered, what it costs, and what stays in memory.

`python -m bench.starting` starts a gateway that is set up already, over an upstream of its own, with one router and one
of Envoy's, again and again; `--beside FOLDER` takes turns with another checkout of this repository, whose protocols are
generated. The first round of each sets it up, and is not counted. Linux only: memory is what /proc says of shared and
private pages, of all processes, of which the launcher, the fork server and the collector of logs are told too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from bench.gateway import CHAT, upstream
from deploy.local.ports import Ports

REPOSITORY: Final = Path(__file__).resolve().parents[1]
MOST_S: Final = 120.0
GREETING: Final = "Moa is ready"
SETTLED_S: Final = 5.0
"""After the first answer so much time passes before memory is looked at."""


@dataclass
class Start:
    """One start."""

    ready_s: float
    """Until it says that it is ready."""
    answered_s: float
    """Until the first chat after that was answered."""
    cpu_s: float
    """Of all processes until then, with those that have ended."""
    mb: dict[str, float] = field(default_factory=dict)
    """By process, a while later."""


def _ask(home: Path) -> None:
    """Have a chat answered. Raises OSError where it is refused."""
    told = dict(line.split("=", 1) for line in (home / "dev.env").read_text().splitlines())
    request = urllib.request.Request(  # noqa: S310  # our own address
        f"{told['MOA_URL']}/v1/chat/completions",
        json.dumps(CHAT).encode(),
        {"Authorization": f"Bearer {told['MOA_API_KEY']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=MOST_S) as answer:  # noqa: S310  # our own address
        answer.read()


def started(checkout: Path, home: Path, direct: str) -> Start:
    """Start a checkout's gateway in its state folder, measure, and stop it."""
    ports = Ports()
    port = ports.any()
    ports.close()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "PYTHONPATH": f"{checkout / 'gen'}{os.pathsep}{checkout}",
        "OPENAI_BASE_URL": direct,
        "OPENAI_API_KEY": "sk-bench",
        "MOA_LOG_LEVEL": "warning",
        "MOA_FETCH": "never",
        "MOA_HOME": str(home),
        "MOA_PORT": str(port),
        "MOA_ROUTERS": "1",
        "MOA_EDGE_PROCESSES": "1",
    }
    began = time.monotonic()
    launcher = subprocess.Popen(  # noqa: S603  # this very program
        [sys.executable, "-m", "deploy.local.child", str(os.getpid()), "deploy.local"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    try:
        if not any(line.startswith(GREETING) for line in launcher.stdout):
            raise SystemExit(f"{checkout}: the gateway did not start")
        ready_s = time.monotonic() - began
        _ask(home)
        result = Start(ready_s, time.monotonic() - began, sum(map(_spent_s, _all(launcher))))
        time.sleep(SETTLED_S)
        result.mb = _held_mb(launcher)
        return result
    finally:
        launcher.send_signal(signal.SIGINT)
        launcher.wait(MOST_S)


def _all(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    process = psutil.Process(launcher.pid)
    return [process, *process.children(recursive=True)]


def _spent_s(process: psutil.Process) -> float:
    try:
        times: Any = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _held_mb(launcher: subprocess.Popen[str]) -> dict[str, float]:
    held: Counter[str] = Counter()
    for process in _all(launcher):
        with suppress(psutil.Error):
            held[_name(process, launcher.pid)] += process.memory_full_info().pss / 2**20
    return dict(held)


def _name(process: psutil.Process, launcher: int) -> str:
    """Return what a process is called here: a service as it calls itself."""
    words = process.cmdline()
    if process.pid == launcher:
        return "launcher"
    for part, name in (("collector", "collector"), ("envoy", "edge"), ("postgres", "postgres"), ("pg", "postgres")):
        if any(part in word for word in words[:4]) or process.name().startswith(part):
            return name
    own = process.name()
    return own.removeprefix("moa-") if own.startswith("moa-") else "fork server"


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
        _row("CPU until then, s", [start.cpu_s for start in starts])
        _row("memory (PSS), MB", [sum(start.mb.values()) for start in starts], 0)
        for name in sorted(starts[-1].mb, key=lambda name: -starts[-1].mb[name]):
            _row(f"  {name}", [start.mb.get(name, 0.0) for start in starts], 1)


if __name__ == "__main__":
    main()
