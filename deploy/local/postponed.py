"""Processes that are started with the first request that is for them; until then others take their requests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


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
