"""The log files of a gateway on this machine: what processes say goes to them by way of the collector."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from deploy.local import collector, keep

_PIPE_BYTES: Final = 1 << 20
"""What may be said before the collector comes to it; then who speaks waits. Linux only: elsewhere it is 64 KiB."""
_ANSWER_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is kept of each process's log.

    Args:
        file_bytes: How large a file may be before the next is begun. One is begun each day, too.
        files: How many files are kept beside the one that is written.
        days: For how long those are kept.
    """

    file_bytes: int = 20 * 2**20
    files: int = 5
    days: float = 14.0


class Files:
    """Log files that processes write to by themselves, and that grow without end: for what runs for a moment."""

    def open(self, path: Path) -> BinaryIO:
        """Return what writes to the end of the file, for a process to inherit; the caller closes its own."""
        keep.private_folder(path.parent)
        return keep.appending(path)

    def sync(self) -> None:
        """Return once all that was said is in the files."""

    def close(self) -> None:
        """Return once all that was said is in the files. Who still speaks is not heard."""


class Logs(Files):
    """Pipes to log files. The collector is begun with the first, and again should it end by itself, until `close`."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._lock = threading.RLock()
        self._pipes: dict[Path, tuple[int, int]] = {}
        self._orders: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The collector's process id; None while there is none."""
        return self._process.pid if self._process is not None else None

    def open(self, path: Path) -> BinaryIO:
        """Return what writes to the end of the file, for a process to inherit; the caller closes its own."""
        with self._lock:
            keep.private_folder(path.parent)
            if path not in self._pipes:
                self._pipes[path] = ends = os.pipe()
                if sys.platform == "linux":
                    # Refused beyond what a user may have of such memory.
                    with contextlib.suppress(OSError):
                        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
                if self._process is None:
                    self._begin()
                else:
                    self._order(path)
            return os.fdopen(os.dup(self._pipes[path][1]), "wb")

    def sync(self) -> None:
        """Return once all that was said is in the files."""
        with self._lock:
            if self._process is not None:
                self._order(None)

    def close(self) -> None:
        """Return once all that was said is in the files, and the collector has ended."""
        with self._lock:
            process, self._process = self._process, None
            for ends in self._pipes.values():
                for end in ends:
                    os.close(end)
            self._pipes.clear()
            if self._orders is not None:
                self._orders.close()
                self._orders = None
        if process is not None:
            try:
                process.wait(_ANSWER_S)
            except subprocess.TimeoutExpired:
                # A process that outlived its stop still has its pipe.
                process.kill()
                process.wait()

    def _begin(self) -> None:
        if self._orders is not None:
            self._orders.close()
        self._orders, its = socket.socketpair()
        self._orders.settimeout(_ANSWER_S)
        with its:
            limits = (self._limits.file_bytes, self._limits.files, self._limits.days)
            command = [sys.executable, "-I", "-S", str(Path(collector.__file__).resolve()), *map(str, limits)]
            self._process = subprocess.Popen(
                command,
                stdin=its.fileno(),
                # It may outlive the owner, whose terminal or pipe it must not hold.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in the owner's terminal is for the owner.
                start_new_session=True,
                umask=0o077,
            )
        threading.Thread(target=self._await_end, args=(self._process,), name="logs", daemon=True).start()
        for path in self._pipes:
            self._order(path)

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._lock:
            if self._process is process:
                # It was killed. What was said meanwhile is in the pipes.
                self._begin()

    def _order(self, path: Path | None) -> None:
        assert self._orders is not None
        # One that was killed answers nothing, and the next one is told of all pipes.
        with contextlib.suppress(OSError):
            if path is None:
                self._orders.sendall(b"sync")
            else:
                socket.send_fds(self._orders, [b"write " + os.fsencode(path)], [self._pipes[path][0]])
            self._orders.recv(1)
