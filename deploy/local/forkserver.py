"""Fork a gateway's processes from one that has imported what all of them need (see `deploy.local.forking`).

`python -m deploy.local.forkserver CONTROL_FD [CATALOGUE]` imports, has a child read the catalogue, and then does what
the control socket asks: it has run nothing else of what it imported, and has one thread, so that its children are as
good as processes that were started anew. They may ask it for helper processes of their own, forked likewise.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from deploy.local import child
from deploy.local.forked import PID_BYTES, Forked

PRELOADED: Final = ("services.quota_client", "services.common.rpc.server")
"""What every service imports, and with it gRPC, uvloop, the catalogue. No more: a metric of a module that a service
does not use would be among its own."""
SETTINGS: Final = (
    *("services.auth.settings", "services.desk.settings", "services.image.settings", "services.router.settings"),
    *("services.tasks.settings", "services.text.settings", "inference.settings"),
)
"""What has no metric, and makes classes as it is imported. A process that made its own would keep more than those: a
copy of each page of pydantic's with an object that is used for it, since CPython counts uses in the objects."""
LIBRARIES: Final = ("aiohttp", "PIL.Image", "psycopg", "psycopg_pool")
"""What two services or more import beside it, and takes most of the time and memory of their own imports."""
RETIRE: Final = b"retire"
"""Asks a server to fork nothing more, and to end after its children."""
ORDER_BYTES: Final = 2**20
ORDER_FDS: Final = 253
_FIRST_FREE_FD: Final = 256
_PR_SET_NAME: Final = 15


def main(control: socket.socket, catalogue: str = "") -> None:
    """Serve until whoever asks is gone. Returns in each forked process, which then is what was asked for.

    Args:
        control: Where it is asked.
        catalogue: The file of the catalogue that most of the processes will read; empty: none.
    """
    # Before the other imports, which take as long on another core.
    keep = _read_apart(Path(catalogue)) if catalogue else None
    for module in (*PRELOADED, *LIBRARIES, *SETTINGS):
        importlib.import_module(module)
    if keep is not None:
        keep()
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise SystemExit(f"{threads} threads run after the imports: this process cannot be forked")
    gc.collect()
    gc.freeze()
    mine = os.getpid()
    server = _Server(control)
    asked, fds = server.asked()
    order = json.loads(asked)
    sys.argv[:] = [child.__name__, str(mine), order.pop("module")]
    asking = server.asking_above(order["fds"])
    become(fds, **order)
    importlib.import_module("services.common.helper_process").fork_by(functools.partial(_helper, asking))


def _read_apart(path: Path) -> Callable[[], None]:
    """Have a child read the catalogue, for what it leaves behind goes with it; return what waits and keeps the rows."""
    prepared = importlib.import_module("services.catalogue.prepared")
    read = importlib.import_module("services.catalogue.reading").read
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.close(reading)
            with open(writing, "wb") as written:  # noqa: PTH123  # a descriptor
                written.write(read(path))
        finally:
            os._exit(0)
    os.close(writing)

    def keep() -> None:
        with open(reading, "rb") as given:  # noqa: PTH123  # a descriptor
            if rows := given.read():
                prepared.keep(path, rows)
        os.waitpid(pid, 0)

    return keep


def _helper(asking: socket.socket, module: str, fd: int, environment: Mapping[str, str]) -> Forked:
    """Have the server of this process fork a helper process of it. Raises OSError where the server is gone."""
    order = {
        "module": module,
        "name": "helper",
        "environment": dict(environment),
        "arguments": [str(fd)],
        "folder": str(Path.cwd()),
        "fds": [fd],
    }
    return Forked.asked(asking, order, [sys.stderr.fileno(), fd])


class _Server:
    """What is watched: the control socket, that of the children, and the children by their pidfds."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._retired = False
        self._asked_by_children, self._asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._children: dict[int, tuple[int, socket.socket]] = {}
        """Process id, and where its end is told, by pidfd."""
        self._watched = selectors.DefaultSelector()
        for each in (control, self._asked_by_children):
            self._watched.register(each, selectors.EVENT_READ)

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
                asked, fds = self._read(self._control if key.fd == self._control.fileno() else self._asked_by_children)
                if asked == RETIRE:
                    self._watched.unregister(self._control)
                    self._retired = True
                elif self._fork(fds):
                    return asked, fds[1:]
            if self._retired and not self._children:
                raise SystemExit(0)

    def asking_above(self, fds: list[int]) -> socket.socket:
        """Return where a child asks for more, with a number that none of those descriptors shall have."""
        with self._asking as asking:
            return socket.socket(fileno=fcntl.fcntl(asking, fcntl.F_DUPFD_CLOEXEC, _first_free(fds)))

    @staticmethod
    def _read(link: socket.socket) -> tuple[bytes, list[int]]:
        with contextlib.suppress(ConnectionError):
            asked, fds, _, _ = socket.recv_fds(link, ORDER_BYTES, ORDER_FDS)
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
            self._asked_by_children.close()
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
    free = _first_free(fds)
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


def _first_free(fds: list[int]) -> int:
    """Return the least number that is above all of these, and out of the way."""
    return max((_FIRST_FREE_FD, *(fd + 1 for fd in fds)))


def bury(pidfd: int, pid: int, reply: socket.socket) -> None:
    """Take the exit code of a process that has ended, and send it to whoever asked for the process."""
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with contextlib.suppress(OSError):
        reply.send(os.waitstatus_to_exitcode(status).to_bytes(PID_BYTES, "big", signed=True))
    reply.close()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
    child.main()
