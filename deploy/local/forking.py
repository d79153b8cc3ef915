"""Start a gateway's processes as forks of one that has imported what all of them need: the fork server.

Each of them would import for 0.4 s of CPU, and keep 20 MB that all have alike. The server ends with the supervisor's
thread, as the processes do; one that was killed is replaced, and so are its children, which end with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from deploy.local.forked import Forked
from deploy.local.forkserver import RETIRE
from deploy.local.supervisor import Spec, Started, started
from deploy.local.topology import EDGE

_TRIES: Final = 2
_CODE: Final = ("services", "gen", "inference", "gateway")
BEGUN_S: Final = 10.0
"""For so long after a server began its code is not looked at: a gateway starts."""
_READ_AT_START: Final = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "GLIBC_TUNABLES"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF"),
)
"""What the interpreter and the C library read when a program starts, and what is imported then: aiohttp makes its TLS
context. No more: the processes of one server have its first environment in their memory, and each is to know its own
secrets alone."""


class Forks:
    """Starts processes for a supervisor, in the supervisor's thread.

    Code that has changed since the server began is not put together with what the server has: another one takes over.
    The edge is started by itself: where a server is killed, it has callers wait until the services are back.
    """

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._guard = threading.Lock()
        self._began = 0.0
        self._code: tuple[int, int] = (0, 0)

    def begin(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the server ahead of the first process, in a thread that lives as long as the processes shall.

        Args:
            environment: What processes are told; most of it the server is not.
            folder: The processes' working folder.
        """
        with contextlib.suppress(OSError), self._guard:
            self._begin(environment, folder)

    def attendant(self, orders: socket.socket) -> Forked:
        """Have the server fork an attendant of the launcher, which is asked by a socket.

        Raises OSError where there is no server: it would end with the thread that asks.
        """
        with self._guard:
            control = self._control
        if control is None:
            raise OSError("there is no fork server")
        variables = {name: value for name, value in os.environ.items() if name in _READ_AT_START or name[:2] == "PG"}
        order = {
            "module": "deploy.local.attendant",
            "name": "attendant",
            "environment": variables,
            "arguments": [str(orders.fileno())],
            "folder": str(Path.cwd()),
            "fds": [orders.fileno()],
        }
        made = Forked.asked(control, order, [sys.stderr.fileno(), orders.fileno()])
        threading.Thread(target=made.wait, name="attendant", daemon=True).start()
        return made

    def spawn(self, spec: Spec, folder: Path, output: BinaryIO) -> Started:
        """Start a process, by itself where no server can be had."""
        if sys.platform == "linux" and spec.module != EDGE.module:
            if time.monotonic() - self._began > BEGUN_S and _code(folder) != self._code:
                self.renew()
            for _ in range(_TRIES):
                with contextlib.suppress(OSError):
                    return self._forked(spec, folder, output)
                self.renew()
        return started(spec, folder, output)

    def renew(self) -> None:
        """Have later processes forked from code as it is then. The server ends after those that it forked before."""
        with self._guard:
            control, self._control = self._control, None
        if control is not None:
            with control, contextlib.suppress(OSError):
                control.send(RETIRE)

    def close(self) -> None:
        """Return when the server has ended. Those that it forked have ended before."""
        self.renew()
        if self._server is not None:
            self._server.wait()

    def _forked(self, spec: Spec, folder: Path, output: BinaryIO) -> Forked:
        with self._guard:
            control = self._control or self._begin(spec.environment, folder)
        order = {
            "module": spec.module,
            "name": spec.name,
            "environment": dict(spec.environment),
            "arguments": [],
            "folder": str(folder),
            "fds": list(spec.fds),
        }
        return Forked.asked(control, order, [output.fileno(), *spec.fds])

    def _begin(self, environment: Mapping[str, str], folder: Path) -> socket.socket:
        self._began, self._code = time.monotonic(), _code(folder)
        self._control, self._server = _served(environment, folder)
        return self._control


def _code(folder: Path) -> tuple[int, int]:
    """Return what is another number where code in a folder is other: when the last file changed, and how many."""
    times = [
        os.stat(os.path.join(where, name)).st_mtime_ns  # noqa: PTH116, PTH118  # a thousand files: 5 ms, not 30
        for part in _CODE
        for where, _, names in os.walk(folder / part)
        for name in names
        if name.endswith(".py")
    ]
    return max(times, default=0), len(times)


def _served(given: Mapping[str, str], folder: Path) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a server; return the socket by which it is asked, and the server."""
    environment = {
        name: value for name, value in given.items() if name in _READ_AT_START or name.startswith(("PYTHON", "MALLOC_"))
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = ["deploy.local.child", str(os.getpid()), "deploy.local.forkserver", str(theirs.fileno())]
        command += [given[name] for name in ("MOA_CATALOGUE",) if name in given]
        try:
            server = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        except BaseException:
            ours.close()
            raise
    # Nobody else waits for its end.
    threading.Thread(target=server.wait, name="fork server", daemon=True).start()
    return ours, server
