"""Write what processes say into files that are begun anew by size and by day: `collector.py FILE_BYTES FILES DAYS`.

A process of its own, so that neither a launcher that is stopped or killed nor a terminal's Ctrl-C holds up or cuts off
what others say: it ends when nobody can say anything any more. A script with the standard library alone, run without
site packages and without `pathlib`, which takes a fifth of its memory: it costs some 5 MB.

Standard input is a socket. `write PATH` comes with the reading end of a pipe, whose lines go to the end of the file
from then on; `sync` is answered once everything that was said before is in the files.
"""

# ruff: noqa: PTH105, PTH108, PTH116

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable

_CHUNK_BYTES = 1 << 16
_CHUNKS = 64
"""Of one pipe before the next one's turn: more than a pipe holds."""
_GATHER_S = 0.02
"""What is said within this time is written at once: under load a line costs little."""
_TIDY_S = 3600.0
_DAY_S = 86_400
_WORD_BYTES = 1 << 16


class Log:
    """A file with those that came before it: `x.log`, `x.log.1` the last one before it, and so on.

    A line is in one file as a whole.

    Args:
        path: The file.
        file_bytes: How large it may be before the next is begun; a line may reach beyond.
        files: How many that came before it are kept.
        days: For how long those are kept.
        clock: Seconds since 1970.
    """

    def __init__(
        self, path: str, *, file_bytes: int, files: int, days: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._files = files
        self._days = days
        self._clock = clock
        self._file = -1
        self._is_amid = False
        """Whether what was said last ended amid a line."""
        self._is_whole = True
        """Whether what was written last ended a line."""
        self._lost_bytes = 0
        self._opened()

    def write(self, data: bytes) -> None:
        """Add to the file. What the disk does not take is lost, and how much that was is told once it does again."""
        was_amid, self._is_amid = self._is_amid, not data.endswith(b"\n")
        if self._file < 0 and not self._opened():
            self._lost_bytes += len(data)
            return
        if self._lost_bytes:
            # The rest of a line of which some is lost is lost, too.
            cut = (data.find(b"\n") + 1 or len(data)) if was_amid else 0
            self._lost_bytes += cut
            data = data[cut:]
            notice = b'{"event":"log.lost","process":"launcher","bytes":%d}\n' % self._lost_bytes
            if not data or not self._put(notice if self._is_whole else b"\n" + notice):
                self._lost_bytes += len(data)
                return
            self._lost_bytes = 0
        while data:
            if self._is_whole and self._is_due():
                self._begin_next()
            # Up to the end of the line with which the file is full.
            end = data.find(b"\n", max(0, self._file_bytes - self._size - 1)) + 1 or len(data)
            whole, data = self._put(data[:end]), data[end:]
            if not whole:
                self._lost_bytes += len(data)
                return

    def tidy(self) -> None:
        """Remove the files before it that are too old."""
        for number in range(1, self._files + 1):
            with contextlib.suppress(OSError):
                if self._clock() - os.stat(self._before(number)).st_mtime > self._days * _DAY_S:
                    os.unlink(self._before(number))

    def _opened(self) -> bool:
        """Open the file; tell whether that could be done."""
        try:
            self._open()
        except OSError:
            return False
        return True

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        result = os.fstat(self._file)
        self._is_file = stat.S_ISREG(result.st_mode)
        self._size = result.st_size
        self._day = int((result.st_mtime if self._size else self._clock()) // _DAY_S)

    def _is_due(self) -> bool:
        """Return whether the next file is due: by its size, or because its lines are of an earlier day (UTC)."""
        if not self._is_file or not self._size:
            return False
        return self._size >= self._file_bytes or self._day != self._today()

    def _begin_next(self) -> None:
        """Begin the next file. Where that cannot be done, what is open is written on."""
        before = self._file
        try:
            for number in range(self._files, 1, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self._before(number - 1), self._before(number))
            if self._files:
                os.replace(self._path, self._before(1))
            else:
                os.unlink(self._path)
            self._open()
        except OSError:
            return
        os.close(before)
        self.tidy()

    def _before(self, number: int) -> str:
        return f"{self._path}.{number}"

    def _put(self, data: bytes) -> bool:
        """Write all of it; what cannot be written is counted as lost."""
        while data:
            try:
                count = os.write(self._file, data)
            except OSError:
                self._lost_bytes += len(data)
                return False
            self._size += count
            self._is_whole = data[count - 1 : count] == b"\n"
            self._day = self._today()
            data = data[count:]
        return True

    def _today(self) -> int:
        return int(self._clock() // _DAY_S)


class Collector:
    """Reads pipes until all are closed, and its orders until that is closed."""

    def __init__(self, orders: socket.socket, *, file_bytes: int, files: int, days: float) -> None:
        self._orders: socket.socket | None = orders
        self._file_bytes, self._files, self._days = file_bytes, files, days
        self._logs: dict[int, Log] = {}
        self._poll = select.poll()
        self._poll.register(orders, select.POLLIN)

    def run(self) -> None:
        """Return when nobody can say anything any more."""
        tidied_at = time.monotonic()
        while self._orders is not None or self._logs:
            ready = self._poll.poll(_TIDY_S * 1000)
            self._obey(ready)
            if any(descriptor in self._logs for descriptor, _ in ready):
                time.sleep(_GATHER_S)
                self._collect()
            if time.monotonic() - tidied_at > _TIDY_S:
                tidied_at = time.monotonic()
                for log in self._logs.values():
                    log.tidy()

    def _obey(self, ready: list[tuple[int, int]]) -> None:
        orders = self._orders
        if orders is None or not any(descriptor == orders.fileno() for descriptor, _ in ready):
            return
        word, pipes, _, _ = socket.recv_fds(orders, _WORD_BYTES, 1)
        if not word:
            self._poll.unregister(orders)
            orders.close()
            self._orders = None
            return
        order, _, path = os.fsdecode(word).partition(" ")
        if order == "write":
            os.set_blocking(pipes[0], False)
            self._logs[pipes[0]] = Log(path, file_bytes=self._file_bytes, files=self._files, days=self._days)
            self._poll.register(pipes[0], select.POLLIN)
        else:
            self._collect()
        with contextlib.suppress(OSError):
            orders.sendall(b".")

    def _collect(self) -> None:
        """Write what the pipes hold, and leave those that are closed."""
        for pipe, log in list(self._logs.items()):
            for _ in range(_CHUNKS):
                try:
                    data = os.read(pipe, _CHUNK_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    self._poll.unregister(pipe)
                    os.close(pipe)
                    del self._logs[pipe]
                    break
                log.write(data)


def main() -> None:
    """Collect until the end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    file_bytes, files, days = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    Collector(socket.socket(fileno=0), file_bytes=file_bytes, files=files, days=days).run()


if __name__ == "__main__":
    main()
