"""Logs on a disk that is full, and of a process that crashes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

SCRIPT = """
from services.common import logs
logs.configure("test", "info")
logs.get("test").info("line.written")
print("went on")
"""
CRASHES = """
import ctypes
from services.common import logs
logs.configure("test", "info")
def reads_nowhere():
    ctypes.string_at(0)
reads_nowhere()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    """A line that cannot be written is lost: the call that it tells of does not fail for it."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_crash_leaves_where_it_was() -> None:
    """A process that a library's fault ends by a signal has written which of its functions asked for that."""
    done = subprocess.run([sys.executable, "-c", CRASHES], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGSEGV
    assert "in reads_nowhere" in done.stderr


LINES = """
from services.common import logs
from services.common.scrub import know
logs.configure("test", "info")
know("deadbeefdeadbeef")
log = logs.get("rpc")
log.info("rpc.finished", request_id="deadbeefdeadbeef", names=["sk-0123456789abcdef0123"], ended=0.5)
try:
    raise ValueError("sk-0123456789abcdef0123")
except ValueError:
    log.info("work.failed", exc_info=True)
log.debug("line.unwanted")
log.warning("work.late")
"""


def test_lines() -> None:
    """A line has its fields, its event, process, level and time, in this order, and no secret; a failure its trace."""
    done = subprocess.run([sys.executable, "-c", LINES], stderr=subprocess.PIPE, text=True, check=True)
    first, failed, late = map(json.loads, done.stderr.splitlines())
    assert datetime.fromisoformat(first.pop("timestamp")).utcoffset() == timedelta(0)
    assert list(first.items()) == [
        ("source", "rpc"),
        ("request_id", "[redacted]"),
        ("names", ["[redacted]"]),
        ("ended", 0.5),
        ("event", "rpc.finished"),
        ("process", "test"),
        ("level", "info"),
    ]
    assert failed["exception"].endswith("ValueError: [redacted]")
    assert (failed["level"], late["level"], late["process"]) == ("info", "warning", "test")
