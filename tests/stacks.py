"""Gateways for tests, each in a state folder of its own that is copied from one: it has its first account already."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deploy.local import keep
from deploy.local.stack import Stack
from deploy.local.supervisor import Spec, Started
from deploy.local.topology import PROCESSES
from tests import forking
from tests.emulators.painter import painting

QUICK = {
    "MOA_DRAIN_S": "1",
    "MOA_TORCH_THREADS": "1",
    "MOA_EDGE_LOG_FLUSH_S": "0.05",
    "MOA_SETTLE_EVERY_S": "0.05",
    # A busy machine is no database that is away.
    "MOA_DATABASE_WAIT_S": "20",
}


@functools.cache
def _first() -> Path:
    """Start a gateway for the first time: database, schemas, secrets, account, key. Return its state folder."""
    folder = Path(tempfile.mkdtemp(prefix="moa-first-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Stack(folder, durable=False, processes=("auth", "tasks"), environment=QUICK, start=forking.spawn):
        pass
    shutil.rmtree(folder / "logs")
    return folder


def begun(root: Path) -> None:
    """Make a state folder as a first start leaves it."""
    root.mkdir(parents=True, exist_ok=True)
    # Not by shutil: the database's files belong to another user, where tests are run by root.
    subprocess.run(["cp", "-a", f"{_first()}/.", root], check=True)


def gateway(
    root: Path,
    *,
    environment: Mapping[str, str] | None = None,
    processes: Collection[str] | None = None,
    workers: Mapping[str, int] | None = None,
    start: Callable[[Spec, Path, BinaryIO], Started] = forking.spawn,
) -> Stack:
    """Return a gateway in `root`, not started; its start is a second start, which takes half of a first one's time."""
    begun(root)
    forking.prepare([process.module for process in PROCESSES if processes is None or process.name in processes])
    return Stack(
        root,
        durable=False,
        environment={**QUICK, **(environment or {})},
        processes=processes,
        workers=workers,
        start=start,
    )


def token_of(root: Path) -> str:
    """Return what services of the gateway in a state folder show each other."""
    return keep.internal_secrets(root / "secrets.env")["MOA_SERVICE_TOKEN"]


@contextmanager
def painted(root: Path, *, processes: Iterable[str] = ("auth", "router", "tasks", "edge")) -> Iterator[Stack]:
    """Yield a running gateway with no engine: a painter answers for the local image models, and is there at once.

    `root` may hold an earlier gateway, which then goes on.
    """
    with painting(token_of(root)) as address:
        environment = {**QUICK, "MOA_INFERENCE_ADDRESS": address}
        with Stack(root, durable=False, environment=environment, processes=processes, start=forking.spawn) as stack:
            yield stack
