"""Ask for the processes of large requests, where they are started only once there is such a request."""

from __future__ import annotations

import contextlib
import os


class LargeProcesses:
    """Asks whoever starts processes, once.

    Args:
        fd: An open file whose reader starts them; None: nobody is asked.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def want(self) -> None:
        """Ask, unless that was done. Who cannot be asked any more is stopping."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._fd, b"1")
        self._fd = None
