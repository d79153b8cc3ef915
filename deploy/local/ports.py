"""Ports for processes of one machine, none given twice: not in this process, nor in another of the same user."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from pathlib import Path

# Below 32768 the kernel hands nothing out by itself, so a chosen port is not taken by an outgoing connection.
_LOW, _HIGH = 20_000, 32_000
_BLOCK = 100


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether nothing listens on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class _Blocks:
    """What this process may give: whole blocks of ports, each claimed by the lock of a file.

    A port is bound only by the program that is started on it, seconds after it was chosen; that it was free says
    nothing about then. So whoever chooses holds a claim, which the kernel ends with the process, however that ends.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._claims: list[int] = []
        self._left: list[int] = []

    def next(self) -> int:
        """Give a port that this process alone may give, and has not given. Raises OSError when there is none."""
        with self._guard:
            if not self._left:
                self._left = self._claimed()
            return self._left.pop()

    def _claimed(self) -> list[int]:
        folder = Path(tempfile.gettempdir()) / f"moa-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        starts = range(_LOW, _HIGH, _BLOCK)
        for start in random.sample(starts, len(starts)):
            file = os.open(folder / str(start), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            self._claims.append(file)
            return list(range(start, start + _BLOCK))
        raise OSError("no free port")


_BLOCKS = _Blocks()


class Ports:
    """Hands out loopback ports, each once."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def preferring(self, wanted: int) -> int:
        """Give the wanted port when it is free, else any."""
        if wanted not in self._given and is_free(wanted):
            self._given.add(wanted)
            return wanted
        return self.any()

    def any(self) -> int:
        """Give a free port below 32768, which nobody else of this user is given while this process lives."""
        while True:
            port = _BLOCKS.next()
            if is_free(port):
                return port
