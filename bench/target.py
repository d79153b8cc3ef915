"""What is measured: the upstream itself, the gateway, and its peers, all asked in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil


class Meter:
    """Memory and processor time of processes, children included."""

    def __init__(self, pids: Mapping[str, int | None]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items() if pid is not None}

    def memory_mb(self) -> dict[str, float]:
        """Return each process's resident memory. What several share (PostgreSQL's buffers) is counted once."""
        return {name: round(sum(map(_resident, each)) / 2**20, 1) for name, each in self._families().items()}

    def cpu_s(self, *, ended: bool = False) -> dict[str, float]:
        """Return the processor time that each has used; `ended`: with that of their children that have ended."""
        return {name: sum(_cpu_s(one, ended=ended) for one in each) for name, each in self._families().items()}

    def _families(self) -> dict[str, list[psutil.Process]]:
        return {name: [each, *each.children(recursive=True)] for name, each in self._processes.items()}


def _resident(process: psutil.Process) -> int:
    try:
        info = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(getattr(info, "pss", info.rss))


def _cpu_s(process: psutil.Process, *, ended: bool) -> float:
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        # A connection of the database's that ended since it was listed.
        return 0.0
    children = used.children_user + used.children_system if ended else 0.0
    return float(used.user + used.system + children)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that answers chats in OpenAI's dialect."""

    name: str
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    meter: Meter = field(default_factory=lambda: Meter({}))

    @property
    def url(self) -> str:
        """The address of chats."""
        return f"{self.base_url}/chat/completions"
