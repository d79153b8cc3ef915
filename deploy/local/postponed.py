"""Processes that are started with the first request that is for them."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence


class Postponed:
    """Waits for a byte from whoever takes the first such request.

    Args:
        start: Starts the processes; called in a thread of its own, once at most.
    """

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._read_fd, self.fd = os.pipe()
        """`fd` is what those inherit who may write the byte."""
        self._thread = threading.Thread(target=self._wait, name="postponed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait no longer. Those who inherited the file have ended."""
        os.close(self.fd)
        self._thread.join()
        os.close(self._read_fd)

    def _wait(self) -> None:
        if os.read(self._read_fd, 1):
            self._start()


class Postponements:
    """The processes of one gateway that wait, in groups.

    Args:
        start: Starts those of a group; called in a thread of its own, once at most for each.
    """

    def __init__(self, start: Callable[[Sequence[str]], None]) -> None:
        self._start = start
        self._groups: list[Postponed] = []
        self._starting = threading.Lock()
        self._is_over = False
        self.unstarted: frozenset[str] = frozenset()
        """The names of those that are not started."""

    def leave(self, names: Sequence[str]) -> int:
        """Leave a group for the first request that is for it; return the file in which a byte asks for it."""
        self.unstarted |= set(names)
        self._groups.append(Postponed(functools.partial(self._begin, names)))
        return self._groups[-1].fd

    def end(self) -> None:
        """Start none from now on. Returns when none is being started."""
        with self._starting:
            self._is_over = True

    def close(self) -> None:
        """Wait no longer; after `end`."""
        while self._groups:
            self._groups.pop().close()

    def _begin(self, names: Sequence[str]) -> None:
        with self._starting:
            if not self._is_over:
                self._start(names)
                self.unstarted -= set(names)
