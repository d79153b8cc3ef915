"""One at a time: what two `make` commands in one folder must not both do."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(lock: Path, *, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold a lock file; give whether another held it first, so that the work may be done already.

    Args:
        lock: The file; made where it is not there, and left there. The lock ends with the process, however that ends.
        waiting: Called once when another process has the lock, before it is waited for.
    """
    with lock.open("a") as held:
        waited = False
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            waiting()
            fcntl.flock(held, fcntl.LOCK_EX)
        yield waited
