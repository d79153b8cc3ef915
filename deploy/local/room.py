"""How many workers of a process this machine has memory for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ENOUGH_MB: Final = 1024
"""With less than this left, one worker of each kind: one gateway takes 300 MB, a second router 30 MB more, a second
Envoy 20 MB, the two processes of large requests some 60 MB once they run, and models what they are."""

_MACHINE: Final = Path("/proc/meminfo")
_CONTAINER: Final = Path("/sys/fs/cgroup")


def workers(wanted: int, *, machine: Path = _MACHINE, container: Path = _CONTAINER) -> int:
    """Return how many workers of a kind to start: as many as are wanted, one where memory is short."""
    left = [mb for mb in (_left_on_machine(machine), _left_in_container(container)) if mb is not None]
    return 1 if left and min(left) < ENOUGH_MB else wanted


def _left_on_machine(file: Path) -> int | None:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) // 1024 if match else None


def _left_in_container(folder: Path) -> int | None:
    """Return what a container's limit leaves, what the kernel can drop of it included; None where there is no limit."""
    try:
        most = (folder / "memory.max").read_text().strip()
        if not most.isdigit():
            return None
        used = int((folder / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return (int(most) - used + (int(cached[1]) if cached else 0)) // 2**20
