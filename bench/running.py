"""A gateway as `make run` starts it, with all its services, and what each of its processes takes. Linux only.

Memory is what /proc says of shared and private pages, of all processes: the launcher, the fork server and the collector
of logs are told too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.target import Meter, Target
from deploy.local import keep
from deploy.local.ports import Ports

REPOSITORY: Final = Path(__file__).resolve().parents[1]
MOST_S: Final = 120.0
GREETING: Final = "Moa is ready"
LAUNCHER: Final = "launcher"
TOKENS_A_DAY: Final = 1_000_000_000
_PARTS: Final = (("collector", "collector"), ("envoy", "edge"), ("postgres", "postgres"), ("pg", "postgres"))


class Family(Meter):
    """Memory and processor time of a gateway, by what its processes are called."""

    def __init__(self, launcher: int) -> None:
        super().__init__({LAUNCHER: launcher})
        self._launcher = psutil.Process(launcher)

    def _families(self) -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {LAUNCHER: [self._launcher]}
        for process in self._launcher.children(recursive=True):
            try:
                found.setdefault(_name(process), []).append(process)
            except psutil.NoSuchProcess:
                continue
        return found


def _name(process: psutil.Process) -> str:
    """Return what a process is called here: a service as it calls itself."""
    words = process.cmdline()
    for part, name in _PARTS:
        if any(part in word for word in words[:4]) or process.name().startswith(part):
            return name
    own = process.name()
    return own.removeprefix("moa-") if own.startswith("moa-") else "fork server"


def _key_of_a_service(url: str, key: str) -> str:
    """Make an account with a limit that no bench reaches, and return its key: a person has a million tokens a day."""
    account = {
        "name": "bench",
        "role": "service",
        "limits": {"tokens_a_day": TOKENS_A_DAY},
        "rules": [{}],
        "with_key": True,
    }
    asked = urllib.request.Request(  # noqa: S310  # the gateway's own address
        f"{url}/admin/accounts",
        data=json.dumps(account).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=MOST_S) as answer:  # noqa: S310
        made: str = json.load(answer)["api_key"]
    return made


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway that has said that it is ready."""

    url: str
    key: str
    ready_s: float
    """Until it said so."""
    began: float
    """When its launcher was started (monotonic)."""
    meter: Meter

    def target(self, name: str) -> Target:
        """Return it as what is measured."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return Target(name=name, base_url=f"{self.url}/v1", headers=headers, meter=self.meter)


@contextmanager
def running(
    home: Path, direct: str, *, checkout: Path = REPOSITORY, environment: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """Run a checkout's gateway with one router and one of Envoy's over the upstream of that base URL; end it after.

    Args:
        home: Its state folder.
        direct: The base URL of what OpenAI is for it.
        checkout: A folder with this repository, whose protocols are generated.
        environment: More variables.
    """
    ports = Ports()
    port = ports.any()
    ports.close()
    began = time.monotonic()
    launcher = subprocess.Popen(  # noqa: S603  # this very program
        [sys.executable, "-m", "deploy.local.child", str(os.getpid()), "deploy.local"],
        cwd=checkout,
        env={
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
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    try:
        if not any(line.startswith(GREETING) for line in launcher.stdout):
            raise SystemExit(f"{checkout}: the gateway did not start")
        ready_s = time.monotonic() - began
        told: dict[str, Any] = keep.read(home / "dev.env")
        key = _key_of_a_service(told["MOA_URL"], told["MOA_API_KEY"])
        yield Gateway(url=told["MOA_URL"], key=key, ready_s=ready_s, began=began, meter=Family(launcher.pid))
    finally:
        launcher.send_signal(signal.SIGINT)
        launcher.wait(MOST_S)
