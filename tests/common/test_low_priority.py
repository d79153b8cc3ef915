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


@pytest.mark.skipif(sys.platform != "linux", reason="sessions have a priority on Linux only")
def test_it_is_lower_against_other_sessions_too() -> None:
    """A process that lets others go first is in a session of its own, whose priority is lowered with its own."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    answer = subprocess.run([sys.executable, "-c", _ASKS], capture_output=True, text=True, check=True).stdout
    nice, leads, group = answer.strip().split(" ", 2)
    assert (int(nice), leads) == (min(19, before + 7), "True")
    if Path("/proc/self/autogroup").exists():
        assert group.endswith(" nice 7")
