"""How a process holds its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_without_large_blocks_takes_small_pages() -> None:
    """The kernel says so of it."""
    code = "from services.common import memory; memory.take_small_pages(); print(open('/proc/self/status').read())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "THP_enabled:\t0" in told
