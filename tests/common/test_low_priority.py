"""The priority of work that nobody is kept waiting by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ASKS = """
import os, pathlib
from services.common import low_priority
low_priority.yield_to_others(7)
group = pathlib.Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid(), group.read_text() if group.exists() else "")
"""
_TOLD = Path("/proc/self/sched")
_SCHEDULED = _TOLD.read_text() if _TOLD.exists() else ""


def _slice_ns(scheduled: str) -> int:
    return next(int(line.split()[-1]) for line in scheduled.splitlines() if line.startswith("se.slice"))


@pytest.mark.skipif(sys.platform != "linux", reason="sessions have a priority on Linux only")
def test_it_is_lower_against_other_sessions_too() -> None:
    """A process that lets others go first is in a session of its own, whose priority is lowered with its own."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    answer = subprocess.run([sys.executable, "-c", _ASKS], capture_output=True, text=True, check=True).stdout
    nice, leads, group = answer.strip().split(" ", 2)
    assert (int(nice), leads) == (min(19, before + 7), "True")
    if Path("/proc/self/autogroup").exists():
        assert group.endswith(" nice 7")


@pytest.mark.skipif(
    "se.slice" not in _SCHEDULED, reason="this kernel does not tell how long turns are (before Linux 6.12)"
)
def test_its_turns_are_long() -> None:
    """Linux has whoever wakes up wait for the end of a turn that is no longer than its own."""
    asked = _ASKS + "print(pathlib.Path('/proc/self/sched').read_text())"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert _slice_ns(told) == 100_000_000
    assert _slice_ns(_SCHEDULED) < 10_000_000
