"""Ports for processes of one machine, none given twice: not in this process, nor in another of the same user."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

# Below 32768 the kernel hands nothing out by itself, so a chosen port is not taken by an outgoing connection.
_LOW, _HIGH = 20_000, 32_000
_BLOCK = 100


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether nothing listens on the port."""
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
        self._claims: dict[int, int] = {}
        self._left: list[int] = []

    def next(self) -> int:
        """Return a port that this process alone may give, and has not given. Raises OSError when there is none."""
        with self._guard:
            if not self._left:
                self._left = self._claimed()
            return self._left.pop()

    def claim(self, port: int) -> bool:
        """Claim one port below the blocks; tell whether nobody else of this user had."""
        with self._guard:
            return self._locked(port)

    def _claimed(self) -> list[int]:
        starts = range(_LOW, _HIGH, _BLOCK)
        for start in random.sample(starts, len(starts)):
            if self._locked(start):
                return list(range(start, start + _BLOCK))
        raise OSError("no free port")

    def _locked(self, first: int) -> bool:
        folder = Path(tempfile.gettempdir()) / f"moa-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        file = os.open(folder / str(first), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._claims[first] = file
        return True

    def release(self, port: int) -> None:
        """Let go of a claim on one port."""
        with self._guard:
            file = self._claims.pop(port, None)
            if file is not None:
                os.close(file)


_BLOCKS = _Blocks()


class Ports:
    """Hands out loopback ports, each once, and holds those that are reserved until `close`."""

    def __init__(self) -> None:
        self._preferred: set[int] = set()
        self._held: list[socket.socket] = []

    def preferring(self, wanted: int) -> int:
        """Return the wanted port when it is free and nobody else of this user was given it, else any."""
        if wanted not in self._preferred and _BLOCKS.claim(wanted):
            if is_free(wanted):
                self._preferred.add(wanted)
                return wanted
            _BLOCKS.release(wanted)
        return self.any()

    def any(self) -> int:
        """Return a free port below 32768, which nobody else of this user is given while this process lives."""
        while True:
            port = _BLOCKS.next()
            if is_free(port):
                return port

    def reserve(self, choose: Callable[[], int]) -> socket.socket:
        """Return a socket that holds a chosen port from now on, bound and not listening.

        Whoever serves there inherits it: between its death and its next start nobody else can take the port.
        """
        while True:
            held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            # Past what an earlier server's connections left behind; afterwards nobody is let in by the same means.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held.bind(("127.0.0.1", choose()))
            except OSError:
                held.close()
                continue
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            self._held.append(held)
            return held

    def close(self) -> None:
        """Let go of every port that was reserved or preferred."""
        for held in self._held:
            held.close()
        for port in self._preferred:
            _BLOCKS.release(port)
        self._held.clear()
        self._preferred.clear()
