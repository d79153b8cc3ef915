"""What a start needs: a state folder of its own, room on the disk, generated stubs, a free port."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from deploy.local.errors import StackError
from deploy.local.plan import REPOSITORY
from deploy.local.ports import is_free

_LEAST_DISK_BYTES: Final = 200 * 2**20


def locked(root: Path) -> int:
    """Return the lock on a state folder, which tells this process's id. Raises StackError where another has it."""
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StackError(
            f"a gateway already runs in {root}; stop it first (Ctrl-C where it runs), "
            "or name another folder: MOA_HOME=…"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def check_disk(root: Path) -> None:
    """Raise StackError where a state folder's disk is full."""
    free = shutil.disk_usage(root).free
    if free < _LEAST_DISK_BYTES:
        raise StackError(f"the disk of {root} is full: {free // 2**20} MB are left, 200 MB are needed")


def check_stubs() -> None:
    """Raise StackError where nobody has generated the stubs."""
    if not (REPOSITORY / "build" / "moa.binpb").exists() or not (REPOSITORY / "gen" / "moa").exists():
        raise StackError("the generated stubs are missing; run `make proto`")


def check_port(port: int, host: str) -> None:
    """Raise StackError where a public port cannot be had."""
    if not is_free(port, host):
        raise StackError(f"port {port} is in use or not yours to use; choose another: MOA_PORT={port + 1} make run")
