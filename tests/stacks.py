"""Gateways for tests, each in a state folder of its own that is copied from one: it has its first account already."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.local.stack import Stack

QUICK = {"MOA_DRAIN_S": "1", "MOA_TORCH_THREADS": "1"}


@functools.cache
def _first() -> Path:
    """Start a gateway for the first time: database, schemas, secrets, account, key. Return its state folder."""
    folder = Path(tempfile.mkdtemp(prefix="moa-first-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Stack(folder, durable=False, processes=("auth", "tasks"), environment=QUICK):
        pass
    shutil.rmtree(folder / "logs")
    return folder


def gateway(
    root: Path, *, environment: Mapping[str, str] | None = None, processes: Iterable[str] | None = None
) -> Stack:
    """Return a gateway in `root`, not started; its start is a second start, which takes half of a first one's time."""
    root.mkdir(parents=True, exist_ok=True)
    # Not by shutil: the database's files belong to another user, where tests are run by root.
    subprocess.run(["cp", "-a", f"{_first()}/.", root], check=True)
    return Stack(root, durable=False, environment={**QUICK, **(environment or {})}, processes=processes)
