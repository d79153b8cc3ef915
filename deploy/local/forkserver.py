"""Fork a gateway's processes from one that has imported what all of them need (see `deploy.local.forking`).

`python -m deploy.local.forkserver CONTROL_FD` imports, and then does what the control socket asks: it has run nothing
of what it imported, and has one thread, so that its children are as good as processes that were started anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from deploy.local import child

PRELOADED: Final = "services.quota_client"
"""What every service imports, and with it gRPC, the settings, the catalogue. No more: a metric of a module that a
service does not use would be among its own."""
LIBRARIES: Final = ("aiohttp", "PIL.Image", "psycopg", "psycopg_pool")
"""What two services or more import beside it, and takes most of the time and memory of their own imports."""
RETIRE: Final = b"retire"
"""Asks a server to fork nothing more, and to end after its children."""
PID_BYTES: Final = 8
ORDER_BYTES: Final = 2**20
ORDER_FDS: Final = 253
_FIRST_FREE_FD: Final = 256
_PR_SET_NAME: Final = 15


def main(control: socket.socket) -> None:
    """Serve until whoever asks is gone. Returns in each forked process, which then is what was asked for."""
    for module in (PRELOADED, *LIBRARIES):
        importlib.import_module(module)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise SystemExit(f"{threads} threads run after the imports: this process cannot be forked")
    gc.collect()
    gc.freeze()
    mine = os.getpid()
    asked, fds = _Server(control).asked()
    order = json.loads(asked)
    sys.argv[:] = [child.__name__, str(mine), order.pop("module")]
    become(fds, **order)


class _Server:
    """What is watched: the control socket, and the children by their pidfds."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, tuple[int, socket.socket]] = {}
        """Process id, and where its end is told, by pidfd."""
        self._watched = selectors.DefaultSelector()
        self._watched.register(control, selectors.EVENT_READ)

    def asked(self) -> tuple[bytes, list[int]]:
        """Serve until a process is asked for, and return in it, with its order and its descriptors.

        Raises SystemExit when whoever asks has gone: its children are ended by the kernel with this process.
        """
        while True:
            for key, _ in self._watched.select():
                if key.fd in self._children:
                    self._watched.unregister(key.fd)
                    bury(key.fd, *self._children.pop(key.fd))
                    continue
                asked, fds = self._read()
                if asked == RETIRE:
                    self._watched.unregister(self._control)
                elif self._fork(fds):
                    return asked, fds[1:]
            if not self._watched.get_map():
                raise SystemExit(0)

    def _read(self) -> tuple[bytes, list[int]]:
        with contextlib.suppress(ConnectionError):
            asked, fds, _, _ = socket.recv_fds(self._control, ORDER_BYTES, ORDER_FDS)
            if asked:
                return asked, fds
        raise SystemExit(0)

    def _fork(self, fds: list[int]) -> bool:
        """Fork; return whether this is the child."""
        reply = socket.socket(fileno=fds[0])
        pid = os.fork()
        if pid == 0:
            self._watched.close()
            self._control.close()
            reply.close()
            for pidfd, (_, other) in self._children.items():
                os.close(pidfd)
                other.close()
            return True
        pidfd = os.pidfd_open(pid)
        for fd in fds[1:]:
            os.close(fd)
        with contextlib.suppress(OSError):
            socket.send_fds(reply, [pid.to_bytes(PID_BYTES, "big")], [pidfd])
        self._children[pidfd] = pid, reply
        self._watched.register(pidfd, selectors.EVENT_READ)
        return False


def become(
    given: list[int],
    *,
    environment: dict[str, str],
    arguments: list[str],
    folder: str,
    fds: list[int],
    name: str = "",
) -> None:
    """Leave of the server nothing but what it imported.

    Args:
        given: The descriptors that came with the order: the output, and those that shall have the numbers `fds`.
        environment: All variables.
        arguments: More of the command line.
        folder: The working folder.
        fds: The numbers that the process expects.
        name: What `top` and `ps -o comm` call it.
    """
    sys.argv += arguments
    os.setsid()
    # Out of the way first: the numbers that they shall have may be taken by one another.
    free = max(_FIRST_FREE_FD, *(fd + 1 for fd in fds)) if fds else _FIRST_FREE_FD
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in given]
    for fd in given:
        os.close(fd)
    for fd, wanted in zip([high[0], *high], [1, 2, *fds], strict=True):
        os.dup2(fd, wanted)
    for fd in high:
        os.close(fd)
    os.chdir(folder)
    os.umask(0o077)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if name:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"moa-{name}".encode(), 0, 0, 0)


def bury(pidfd: int, pid: int, reply: socket.socket) -> None:
    """Take the exit code of a process that has ended, and send it to whoever asked for the process."""
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with contextlib.suppress(OSError):
        reply.send(os.waitstatus_to_exitcode(status).to_bytes(PID_BYTES, "big", signed=True))
    reply.close()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
    child.main()
