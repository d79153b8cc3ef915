"""Processes of ours for tests, forked from one that has imported their module already.

A service imports for half a second, the inference process with torch for six, and the suite starts hundreds. So there
is one server a module (`tests.forkserver`) for all workers, which has imported what the module needs and nothing else:
it has run none of it, and has one thread. Its children then become the module as `deploy.local.child` does. Envoy and
PostgreSQL are started as ever, and `--exec` starts everything as a gateway outside of the tests does.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from deploy.local.forked import Forked
from deploy.local.stack import REPOSITORY
from deploy.local.supervisor import Spec, started

_FOLDER: Final = "TESTS_FORK_SERVERS"
"""The variable that names the folder of the servers' sockets."""
_WORKER: Final = "tests.suite.worker"
_TRIES: Final = 2
_SERVERS: dict[str, socket.socket] = {}
_LOCK = threading.Lock()

enabled = False
"""Whether to fork: in the tests, where there are pidfds, without `--exec`."""


def spawn(spec: Spec, folder: Path, output: BinaryIO) -> subprocess.Popen[bytes] | Forked:
    """Start a process as a supervisor does; forked, where that is possible."""
    if not _forks(spec.module):
        return started(spec, folder, output)
    return fork(spec.module, spec.environment, folder=folder, output=output.fileno(), fds=spec.fds)


def fork(
    module: str,
    environment: Mapping[str, str],
    *arguments: str,
    folder: Path = REPOSITORY,
    output: int = 2,
    fds: Sequence[int] = (),
) -> Forked:
    """Fork a process that becomes `module`; its output goes to a descriptor, and it inherits `fds`."""
    ours, theirs = socket.socketpair()
    asked = {"environment": dict(environment), "arguments": arguments, "folder": str(folder), "fds": list(fds)}
    with theirs:
        given = array.array("i", [theirs.fileno(), output, *fds])
        _server(module).sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
    return Forked(ours)


class Begun(Protocol):
    """A process as a test with a loop has it: what it needs of `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """The exit code; None while nobody has waited for its end."""

    async def wait(self) -> int:
        """Return the exit code once it has ended."""

    def send_signal(self, signal: int) -> None:
        """Send a signal."""

    def kill(self) -> None:
        """End it at once."""

    def terminate(self) -> None:
        """Ask it to end."""


class _Awaited:
    """A forked process that a loop waits for."""

    def __init__(self, forked: Forked) -> None:
        self._forked = forked
        self.pid = forked.pid
        self.send_signal, self.kill = forked.send_signal, forked.kill

    @property
    def returncode(self) -> int | None:
        return self._forked.returncode

    async def wait(self) -> int:
        return await asyncio.to_thread(self._forked.wait)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


async def begun(module: str, environment: Mapping[str, str], *arguments: str, output: int = 2) -> Begun:
    """Start a module as a process of its own, forked where that is possible; its output goes to a descriptor."""
    if not _forks(module):
        command = [sys.executable, "-m", module, *arguments]
        return await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    return _Awaited(await asyncio.to_thread(fork, module, environment, *arguments, output=output))


def share() -> Path:
    """Return the folder of the servers' sockets; it goes with the process that first asked for it."""
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="moa-forks-")
        atexit.register(shutil.rmtree, os.environ[_FOLDER], ignore_errors=True)
    return Path(os.environ[_FOLDER])


def prepare(modules: Sequence[str]) -> None:
    """Have the servers of these modules import, so that the first start of each takes no longer than others."""
    for module in modules:
        if _forks(module):
            _server(module)


def worker() -> str | None:
    """Begin to import what workers of pytest-xdist import; return how execnet starts one, None where none is forked."""
    if not _forks(_WORKER):
        return None
    atexit.register(_joined(_WORKER).close)
    return f"popen//python={sys.executable} -I -S {REPOSITORY / 'tests/suite/launch.py'}"


def _forks(module: str) -> bool:
    # CUDA is in use once it was asked whether it is there, and cannot be forked.
    return enabled and not (module in ("inference", _WORKER) and Path("/dev/nvidiactl").exists())


def _server(module: str) -> socket.socket:
    """Return a control socket of a module's server, which has imported it. Raises OSError when it cannot."""
    with _LOCK:
        for _ in range(_TRIES):
            if module not in _SERVERS:
                control = _joined(module)
                # One that nobody used any more may have ended as this worker came.
                if _is_ready(control):
                    _SERVERS[module] = control
                    atexit.register(control.close)
        if module not in _SERVERS:
            raise OSError(f"the fork server of {module} has ended; it said why")
        return _SERVERS[module]


def _joined(module: str) -> socket.socket:
    """Connect to a module's server; start it where there is none."""
    path = share() / f"{module}.sock"
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            control.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                listening.bind(str(path))
                listening.listen()
                _start(module, listening.fileno())
            control.connect(str(path))
    return control


def _start(module: str, listening: int) -> None:
    """Start a server. It ends by itself with the last worker that uses it, not with the one that started it."""
    os.set_inheritable(listening, True)
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "tests.forkserver", module, str(listening)],
        {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY / 'gen'}{os.pathsep}{REPOSITORY}"},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsid=True,
    )


def _is_ready(control: socket.socket) -> bool:
    """Return whether a server has imported its module; close the socket where it has not, or nobody waits any more."""
    told = b""
    try:
        with contextlib.suppress(ConnectionError):
            told = control.recv(1)
    finally:
        if not told:
            control.close()
    return bool(told)
