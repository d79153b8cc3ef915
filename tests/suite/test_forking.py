"""A forked process is as one that was started: its environment, folder, descriptors, and its end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.local.forked import Forked
from deploy.local.supervisor import Spec, Supervisor
from tests import forking, waiting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks with pidfds, which Linux has")
MODULE = "tests.suite.forked"


def told(log: Path) -> list[Any]:
    """Wait for the process's one line."""
    until = time.monotonic() + 60
    pauses = waiting.pauses()
    while not (text := log.read_text() if log.exists() else "").endswith("\n"):
        assert time.monotonic() < until
        time.sleep(next(pauses))
    found: list[Any] = json.loads(text)
    return found


def test_it_has_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    """Its variables, folder, descriptors and arguments are those of its order, and it leads a session of its own; its
    exit code is told."""
    with tempfile.TemporaryFile("w+") as file, (tmp_path / "log").open("ab") as log:
        file.write("read me")
        file.flush()
        file.seek(0)
        given = {"WANTED": "3", "FD": str(file.fileno())}
        process = forking.fork(MODULE, given, folder=tmp_path, output=log.fileno(), fds=[file.fileno()])
        assert process.wait() == process.returncode == 3
        assert told(tmp_path / "log") == [given, str(tmp_path), "read me", [], [0, 1, 2], True]


def test_a_signal_to_one_that_ended_reaches_no_other(tmp_path: Path) -> None:
    """Its descriptor's number may be another process's right after."""
    with tempfile.TemporaryFile("w+") as file, (tmp_path / "log").open("ab") as log:

        def forked(wanted: str) -> Forked:
            given = {"WANTED": wanted, "FD": str(file.fileno())}
            return forking.fork(MODULE, given, folder=tmp_path, output=log.fileno(), fds=[file.fileno()])

        other, ended = forked("sleep"), forked("0")
        assert ended.wait() == 0
        numbers = [os.pidfd_open(other.pid) for _ in range(64)]
        ended.send_signal(signal.SIGTERM)
        other.kill()
        assert other.wait() == -signal.SIGKILL
        for number in numbers:
            os.close(number)


def test_a_supervisor_kills_it_and_starts_it_again(tmp_path: Path) -> None:
    """Death by a signal is told as such, and the next process is another."""
    ended: list[tuple[str, int]] = []
    supervisor = Supervisor(tmp_path, on_death=lambda *how: ended.append(how), start=forking.spawn)
    with tempfile.TemporaryFile("w+") as file:
        environment = {"WANTED": "sleep", "FD": str(file.fileno())}
        log = tmp_path / "logs" / "one.log"
        supervisor.start(Spec(name="one", module=MODULE, environment=environment, log=log, fds=(file.fileno(),)))
        told(log)
        first = supervisor.pid("one")
        log.unlink()
        supervisor.kill("one")
        told(log)
        # It may have spoken before the supervisor has noted that it was made.
        pauses = waiting.pauses()
        while supervisor.pid("one") in (None, first):  # the test's own time limit ends this
            time.sleep(next(pauses))
        supervisor.close()
    assert ended == [("one", -signal.SIGKILL)]


def test_without_forks_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--exec` a process is one of its own from its first instruction on, and tells the same."""
    monkeypatch.setattr(forking, "enabled", False)
    with tempfile.TemporaryFile("w+") as file:
        environment = {"WANTED": "0", "FD": str(file.fileno()), "PYTHONPATH": str(Path.cwd())}
        spec = Spec(name="one", module=MODULE, environment=environment, log=tmp_path / "log", fds=(file.fileno(),))
        with spec.log.open("ab") as output:
            process = forking.spawn(spec, tmp_path, output)
        assert not isinstance(process, Forked)
        assert process.wait() == 0
        assert told(tmp_path / "log")[0] == environment


ANOTHER = f"""
import sys
from tests import forking
forking.enabled = True
process = forking.fork({MODULE!r}, {{"WANTED": "sleep", "FD": "0"}}, output=2)
print(process.pid, flush=True)
sys.stdin.read()
"""


def test_another_worker_has_the_same_server_and_takes_only_its_own_along(tmp_path: Path) -> None:
    """One server imports for all; a worker that goes takes what was forked for it, and nothing of the others'."""
    with tempfile.TemporaryFile("w+") as file, (tmp_path / "log").open("ab") as log:
        given = {"WANTED": "sleep", "FD": str(file.fileno())}
        ours = forking.fork(MODULE, given, folder=tmp_path, output=log.fileno(), fds=[file.fileno()])
        told(tmp_path / "log")
        with subprocess.Popen(
            [sys.executable, "-c", ANOTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as another:
            assert another.stdout is not None
            theirs = psutil.Process(int(another.stdout.readline()))
            assert theirs.ppid() == psutil.Process(ours.pid).ppid()
            another.kill()
        theirs.wait(60)
        assert psutil.pid_exists(ours.pid)
        ours.kill()
        assert ours.wait() == -signal.SIGKILL


TOLD = """
import os, sys
line = sys.stdin.readline()
print("torch" in sys.modules, os.environ["GIVEN"], os.getcwd(), oct(os.umask(0)), line, end="", flush=True)
sys.exit(3)
"""


def test_a_worker_is_forked_and_is_as_one_that_was_started(tmp_path: Path) -> None:
    """It has imported already; its streams, variables, folder, umask and exit code are those of who stands for it."""
    spec = forking.worker()
    if Path("/dev/nvidiactl").exists():
        assert spec is None
        return
    assert spec is not None
    command = shlex.split(spec.partition("python=")[2])
    ended = subprocess.run(
        [*command, "-u", "-c", TOLD],
        input="hello\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "GIVEN": "this"},
        umask=0o027,
        timeout=100,
    )
    assert (ended.stdout, ended.returncode) == (f"True this {tmp_path} 0o27 hello\n", 3), ended.stderr


def test_without_forks_workers_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--exec` execnet starts an interpreter for each."""
    monkeypatch.setattr(forking, "enabled", False)
    assert forking.worker() is None
