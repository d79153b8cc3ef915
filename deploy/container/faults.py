"""What can go wrong with a host: killed, frozen, cut off, parted from another, slow, its clock off, its disk full."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.build.chart import ROOT
from deploy.container import pods
from deploy.container.disks import Disks
from deploy.container.trial import Engine, call, works
from deploy.local.topology import PROCESSES

SKEW_S: Final = 300
"""By how much a clock is off."""
HOSTS: Final = frozenset(process.name for process in PROCESSES if not process.stands_in)
"""What there are two of, each with an address of its own."""
_LIBRARY, _FOLDER = "skew.so", "/skew"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and how it is put right."""

    name: str
    begin: Sequence[Sequence[str]]
    end: Sequence[Sequence[str]]


class Clocks:
    """Clocks of containers, each of which can be set off while its processes run.

    Needs a C compiler on this machine; `possible` tells whether there is one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        source = ROOT / "deploy" / "container" / "skew.c"
        line = ("cc", "-O2", "-shared", "-fPIC", "-o", str(folder / _LIBRARY), str(source), "-ldl")
        self.possible = works(*line)
        folder.chmod(0o755)

    def words_of(self, name: str) -> Sequence[str]:
        """Return the words of an engine's `run` by which a container has such a clock."""
        if not self.possible:
            return ()
        (self._folder / name).write_bytes(struct.pack("<q", 0))
        variables = (f"LD_PRELOAD={_FOLDER}/{_LIBRARY}", f"MOA_SKEW={_FOLDER}/{name}")
        return ("--volume", f"{self._folder}:{_FOLDER}:ro", *(word for each in variables for word in ("--env", each)))

    def line(self, name: str, seconds: int) -> Sequence[str]:
        """Return the command that sets a clock off. The file is written in place: a process has it in its memory."""
        octal = "".join(f"\\{byte:03o}" for byte in struct.pack("<q", seconds))
        return ("sh", "-c", f"printf '{octal}' | dd of={self._folder / name} conv=notrunc status=none")


class Ways:
    """What can be done to containers of an engine."""

    def __init__(self, tools: Engine, clocks: Clocks, disks: Disks) -> None:
        self._run = tools.run
        self._clocks = clocks
        self._disks = disks

    def inspected(self, name: str, what: str) -> str:
        """Return what the engine knows of a container."""
        return call(*self._run, "inspect", "--format", what, name).strip()

    def address(self, name: str) -> str:
        """Return a container's address."""
        return self.inspected(name, f'{{{{(index .NetworkSettings.Networks "{pods.NETWORK}").IPAddress}}}}')

    def killed(self, name: str) -> Fault:
        """Return that a process is killed, and started again."""
        return Fault(f"{name} killed", [(*self._run, "kill", "-s", "KILL", name)], [(*self._run, "start", name)])

    def frozen(self, name: str) -> Fault:
        """Return that a host stands still, and goes on."""
        return Fault(f"{name} frozen", [(*self._run, "pause", name)], [(*self._run, "unpause", name)])

    def cut(self, name: str) -> Fault:
        """Return that nobody reaches a host, nor it anybody."""
        within = ("nsenter", "-t", self.inspected(name, "{{.State.Pid}}"), "-n", "ip", "link", "set", "eth0")
        return Fault(f"{name} cut off", [(*within, "down")], [(*within, "up")])

    def parted(self, one: str, other: str) -> Fault:
        """Return that two hosts do not reach each other, and everybody else does."""
        begin, end = [], []
        for here, there in ((one, other), (other, one)):
            within = ("nsenter", "-t", self.inspected(here, "{{.State.Pid}}"), "-n", "ip", "route")
            begin.append((*within, "add", "blackhole", f"{self.address(there)}/32"))
            end.append((*within, "del", "blackhole", f"{self.address(there)}/32"))
        return Fault(f"{one} | {other}", begin, end)

    def slow(self, name: str) -> Fault:
        """Return that a host's link carries 256 kbit/s."""
        within = ("nsenter", "-t", self.inspected(name, "{{.State.Pid}}"), "-n", "tc", "qdisc")
        rate = ("rate", "256kbit", "burst", "16kb", "latency", "400ms")
        begin = (*within, "add", "dev", "eth0", "root", "tbf", *rate)
        return Fault(f"{name} slow", [begin], [(*within, "del", "dev", "eth0", "root")])

    def skewed(self, name: str, seconds: int) -> Fault:
        """Return that a host's clock is set off, and right again."""
        line = self._clocks.line
        return Fault(f"{name} clock {seconds:+d} s", [line(name, seconds)], [line(name, 0)])

    def full(self, disk: str, restarted: str = "") -> Fault:
        """Return that a disk is full, and has room again, when who ended for want of it is started again."""
        begin = [self._disks.fill(disk)]
        end = [self._disks.free(disk), *([(*self._run, "start", restarted)] if restarted else [])]
        return Fault(f"{disk} disk full", begin, end)


def faults(ways: Ways, *, clocks: bool) -> list[Callable[[], Fault]]:
    """Return what is done, in this order; each is made when it is its turn, for processes have other ids then."""
    ones = [f"moa-{name}-0" for name in ("router", "text", "auth", "tasks", "inference")]
    pairs = [(one.name, other) for one in PROCESSES for other in one.calls.values() if {one.name, other} <= HOSTS]
    one_by_one = (
        (ways.killed, (*ones, "moa-edge-0", "moa-db")),
        (ways.frozen, (*ones, "moa-db")),
        (ways.cut, ones),
        (ways.slow, ("moa-router-0",)),
    )
    skews = [
        functools.partial(ways.skewed, f"moa-{name}-0", seconds)
        for name in ("router", "auth", "tasks")
        for seconds in (SKEW_S, -SKEW_S)
    ]
    return [
        *(functools.partial(way, name) for way, names in one_by_one for name in names),
        *(functools.partial(ways.parted, f"moa-{one}-0", f"moa-{other}-0") for one, other in pairs),
        *(functools.partial(ways.parted, f"moa-{one.name}-0", "moa-db") for one in PROCESSES if one.needs_database),
        *(skews if clocks else ()),
        functools.partial(ways.full, "moa-db", "moa-db"),
        functools.partial(ways.full, "moa-router-0", "moa-router-0"),
        functools.partial(ways.full, "moa-objects"),
    ]


def done(fault: Sequence[Sequence[str]]) -> None:
    """Run commands, each once more where it fails: a busy machine does not always freeze in time."""
    for line in fault:
        if not works(*line):
            call(*line)
