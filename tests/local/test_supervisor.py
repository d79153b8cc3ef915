"""Processes are kept running, ended together, and never left over."""

from __future__ import annotations

import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.stack import REPOSITORY
from deploy.local.supervisor import Spec, Supervisor
from tests import waiting

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
PATIENCE_S = 20


class Watched:
    """A supervisor whose deaths and whose processes' first lines can be waited for."""

    def __init__(self, folder: Path) -> None:
        self.deaths: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self.supervisor = Supervisor(REPOSITORY, on_death=lambda name, code: self.deaths.put((name, code)))
        self.folder = folder

    def start(self, name: str, **environment: str) -> int:
        """Start a sleeper; give its id once it is up."""
        os.mkfifo(self.folder / name)
        spec = Spec(
            name=name,
            module="tests.local.sleeper",
            environment={**ENVIRONMENT, **environment},
            log=self.folder / name,
        )
        self.reader = os.open(self.folder / name, os.O_RDWR)
        self.supervisor.start(spec)
        return self.next_pid()

    def next_pid(self) -> int:
        """Wait for the next process to say that it is up."""
        ready, _, _ = select.select([self.reader], [], [], PATIENCE_S)
        assert ready
        return int(os.read(self.reader, 100).split()[1])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.supervisor.close()


def gone(pid: int) -> Callable[[], bool]:
    """Return a wait for the end of a process that need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return lambda: True

    def wait() -> bool:
        ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        os.close(descriptor)
        return bool(ready)

    return wait


def test_killed_process_comes_back(watched: Watched) -> None:
    """A process killed with -9 is started again, and its death is told with the signal."""
    first = watched.start("one")
    assert watched.supervisor.pid("one") == first
    watched.supervisor.kill("one")
    assert watched.deaths.get(timeout=PATIENCE_S) == ("one", -9)
    second = watched.next_pid()
    assert second != first
    # It may have spoken before the supervisor has noted that it was made.
    pauses = waiting.pauses()
    while (noted := watched.supervisor.pid("one")) in (None, first):  # the test's own time limit ends this
        time.sleep(next(pauses))
    assert noted == second


def test_it_comes_back_again_and_again(watched: Watched) -> None:
    """Deaths in a row do not end the care, they only space it out."""
    seen = {watched.start("one")}
    for _ in range(3):
        watched.supervisor.kill("one")
        seen.add(watched.next_pid())
    assert len(seen) == 4


def test_stopped_process_stays_down(watched: Watched) -> None:
    """What is stopped is not taken for a death."""
    pid = watched.start("one")
    wait = gone(pid)
    watched.supervisor.stop(["one"], wait_s=PATIENCE_S)
    assert wait()
    assert watched.supervisor.pid("one") is None
    assert watched.deaths.empty()


def test_stubborn_process_is_killed(watched: Watched) -> None:
    """A process that does not heed SIGTERM in time is killed."""
    pid = watched.start("one", STUBBORN="1")
    wait = gone(pid)
    watched.supervisor.stop(["one"], wait_s=0.2)
    assert wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_nothing_outlives_a_killed_owner(tmp_path: Path) -> None:
    """kill -9 of the owner ends its processes too."""
    command = [sys.executable, "-m", "tests.local.owner", str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        wait = gone(child)
        owner.kill()
    assert wait()
