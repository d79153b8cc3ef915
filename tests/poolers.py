"""A real PgBouncer in transaction mode before the tests' PostgreSQL, where one is installed.

`MOA_TESTS_POOLED=1` puts one before every database of the tests of auth and of tasks, the runs of `make soak` included.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from deploy.local import unprivileged

MISSING: Final = "PgBouncer is not installed"
_PORT: Final = 6432
_SETTINGS: Final = """
[databases]
* = host={host} user={user}

[pgbouncer]
listen_port = {port}
unix_socket_dir = {folder}
logfile = {folder}/pgbouncer.log
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
server_login_retry = 0
"""


def program() -> str | None:
    """Return PgBouncer's program; None where there is none. `MOA_PGBOUNCER` names one that is not in the path."""
    return os.environ.get("MOA_PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def pooler(url: str, *, size: int = 20) -> Iterator[str]:
    """Run a pooler in transaction mode before a database; yield the URL by which it is reached.

    `size`: how many sessions all clients share.
    """
    found = program()
    if found is None:
        raise RuntimeError(MISSING)
    place = conninfo_to_dict(url)
    with tempfile.TemporaryDirectory(prefix="moa-pooler-") as name:
        folder = Path(name)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            _SETTINGS.format(host=place["host"], user=place["user"], port=_PORT, folder=folder, size=size)
        )
        command = [found, "-q", str(settings)]
        if os.geteuid() == 0:
            user = unprivileged.nobody()
            for each in (folder, settings):
                os.chown(each, user.pw_uid, user.pw_gid)
            command = [sys.executable, unprivileged.__file__, *command]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            _await(folder / f".s.PGSQL.{_PORT}", process)
            yield f"postgresql:///{place['dbname']}?host={folder}&port={_PORT}&user={place['user']}"
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def urls(url: str) -> tuple[str, str]:
    """Return the URLs for a process's transactions and for its sessions; empty: the same."""
    return (_shared(url), url) if os.environ.get("MOA_TESTS_POOLED") else (url, "")


def settings(url: str) -> dict[str, SecretStr]:
    """Return these as settings."""
    return dict(zip(("database_url", "database_session_url"), map(SecretStr, urls(url)), strict=True))


@functools.cache
def _shared(url: str) -> str:
    running = pooler(url)
    atexit.register(running.__exit__, None, None, None)
    return running.__enter__()


def _await(path: Path, process: subprocess.Popen[bytes], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
            link.connect(str(path))
            return
        time.sleep(0.02)
    raise RuntimeError(f"PgBouncer does not answer at {path}")
