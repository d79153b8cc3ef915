"""What the edge's supervisor gives back of a program that has started."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.envoy_supervisor import give_back
from tests.edge.upstream import TIMEOUT_S

_CAP_SYS_NICE = 1 << 23


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A program that reads, which no other process is likely to run."""
    with subprocess.Popen(["tac"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until = time.monotonic() + TIMEOUT_S
        while not (mapped(process.pid) and psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING):
            assert time.monotonic() < until, "the program did not start"
            time.sleep(0.01)
        yield process


def mapped(pid: int) -> int:
    """Return how many bytes of a process's program are mapped and as its file has them."""
    program = shutil.which("tac")
    assert program is not None
    maps = psutil.Process(pid).memory_maps(grouped=False)
    return sum(each.rss - each.private_dirty for each in maps if each.path == os.path.realpath(program))


def allowed() -> bool:
    """Return whether this process may advise the system about another's memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & _CAP_SYS_NICE) and hasattr(ctypes.CDLL(None), "syscall")


def test_a_program_that_has_started_gives_its_pages_back_and_runs_on(waiting: subprocess.Popen[bytes]) -> None:
    """Where it is allowed, nothing of the program is left in memory; what it needs then it reads again."""
    before = mapped(waiting.pid)
    assert give_back(waiting.pid) is allowed()
    after = mapped(waiting.pid)
    assert after < before if allowed() else after == before
    answer, _ = waiting.communicate(b"first\nsecond\n", timeout=TIMEOUT_S)
    assert answer == b"second\nfirst\n"


def test_a_process_that_is_gone_is_left_alone() -> None:
    """One that died since it was looked at has nothing to give back."""
    with subprocess.Popen(["true"]) as process:
        process.wait(TIMEOUT_S)
    assert give_back(process.pid) is False
