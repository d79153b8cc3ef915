"""Logs are begun anew by size and by day, and no line is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.collector import Log
from deploy.local.logs import Limits, Logs
from deploy.local.stack import REPOSITORY

DAY_S = 86_400.0


class Clock:
    """Seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = 1_000 * DAY_S

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[str]:
    """Return the lines of a log from the oldest file on."""
    numbered = sorted(path.parent.glob(path.name + ".*"), key=lambda file: -int(file.suffix[1:]))
    return [line for file in (*numbered, path) for line in file.read_text().splitlines()]


@pytest.fixture
def logs() -> Iterator[Logs]:
    made = Logs(Limits(file_bytes=4_000, files=1_000))
    yield made
    made.close()


def test_no_line_is_lost_or_parted(logs: Logs, tmp_path: Path) -> None:
    """Three processes write 3,000 lines, in pieces; all are in the files, in order, each as a whole in one."""
    path = tmp_path / "logs" / "many.log"
    script = """
import os, sys
for number in range(1000):
    line = f"{sys.argv[1]} {number} {'x' * (number % 97)}\\n".encode()
    os.write(1, line)
"""
    writing = []
    for name in "abc":
        with logs.open(path) as output:
            writing.append(subprocess.Popen([sys.executable, "-c", script, name], stdout=output))
    for process in writing:
        assert process.wait(60) == 0
    logs.sync()
    for name in "abc":
        mine = [line.split() for line in lines(path) if line.startswith(name)]
        assert [int(number) for _, number, *_ in mine] == list(range(1000))
        assert all(len("".join(rest)) == int(number) % 97 for _, number, *rest in mine)
    files = list(path.parent.iterdir())
    assert len(files) > 20
    assert all(file.stat().st_size < 4_000 + 200 for file in files)


def test_a_killed_collector_loses_no_line(logs: Logs, tmp_path: Path) -> None:
    """Another one takes over the pipes, with what was said meanwhile; who speaks notices nothing."""
    path = tmp_path / "one.log"
    output = logs.open(path)
    os.write(output.fileno(), b"before\n")
    logs.sync()
    killed = logs.pid
    assert killed is not None
    os.kill(killed, signal.SIGSTOP)
    os.write(output.fileno(), b"meanwhile\n")
    os.kill(killed, signal.SIGKILL)
    while logs.pid == killed:  # the test's own time limit ends this
        os.sched_yield()
    os.write(output.fileno(), b"after\n")
    output.close()
    logs.sync()
    assert lines(path) == ["before", "meanwhile", "after"]


def test_what_is_said_after_the_owner_was_killed_is_kept(tmp_path: Path) -> None:
    """The collector ends with the last process that can say anything, and not before."""
    path = tmp_path / "last.log"
    script = f"""
import os, subprocess, sys
from pathlib import Path
from deploy.local.logs import Logs
logs = Logs()
output = logs.open(Path({str(path)!r}))
child = subprocess.Popen(["/bin/sh", "-c", "read -r word; echo $word"], stdin=0, stdout=output)
print(logs.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    collector = psutil.Process(int(owner.stdout.readline()))
    owner.wait(30)
    owner.stdin.write("farewell\n")
    owner.stdin.close()
    owner.stdout.close()
    collector.wait(30)
    assert lines(path) == ["farewell"]


def test_a_file_is_begun_each_day(tmp_path: Path) -> None:
    """Lines of a day before are in a file of their own, also where nobody wrote for long or the gateway was off."""
    path, clock = tmp_path / "days.log", Clock()
    log = Log(str(path), file_bytes=10**6, files=5, days=100, clock=clock)
    log.write(b"monday\n")
    clock.now += DAY_S
    log.write(b"tuesday\n")
    assert path.read_text() == "tuesday\n"
    os.utime(path, (clock.now, clock.now))
    clock.now += 2 * DAY_S
    Log(str(path), file_bytes=10**6, files=5, days=100, clock=clock).write(b"thursday\n")
    assert lines(path) == ["monday", "tuesday", "thursday"]
    assert path.read_text() == "thursday\n"


def test_old_files_go(tmp_path: Path) -> None:
    """No more files are kept than were asked for, and none for longer."""
    path, clock = tmp_path / "old.log", Clock()
    log = Log(str(path), file_bytes=1, files=3, days=2, clock=clock)
    for number in range(10):
        log.write(b"%d\n" % number)
    assert lines(path) == ["6", "7", "8", "9"]
    for file in tmp_path.iterdir():
        os.utime(file, (clock.now, clock.now))
    clock.now += 3 * DAY_S
    log.tidy()
    assert lines(path) == ["9"]


def test_a_full_disk_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost is counted, and no line is written in part."""
    path, full = tmp_path / "full.log", False
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if not full:
            return write(descriptor, data)
        if len(data) > 3:
            return write(descriptor, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", limited)
    log = Log(str(path), file_bytes=10**6, files=1, days=1)
    log.write(b"first\n")
    full = True
    log.write(b"secon")
    full = False
    log.write(b"d line\nthird\n")
    first, part, told, *rest = lines(path)
    assert (first, part, rest) == ("first", "sec", ["third"])
    assert told == '{"event":"log.lost","process":"launcher","bytes":9}'
