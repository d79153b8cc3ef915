"""A process that is killed while it waits for a table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psycopg

from tests import waiting


def killed_at(code: str, url: str, table: str, *, mode: str = "access share") -> None:
    """Run code in a process, and kill it while it waits for a table that this holds in a lock mode of PostgreSQL's."""
    with psycopg.connect(url) as holder:
        holder.execute(f"lock table {table} in {mode} mode".encode())
        running = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
        waits = "select count(*) from pg_locks where not granted and relation = %s::regclass"
        pauses, until = waiting.pauses(), time.monotonic() + 60
        while holder.execute(waits, (table,)).fetchone() == (0,):
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(next(pauses))
        running.send_signal(signal.SIGKILL)
        running.wait()


def killed_migration(url: str, table: str) -> None:
    """Let a process bring auth's database up to date, and kill it at a table that it comes to late."""
    killed_at(f"from services.auth.migrations import migrate; migrate({url!r})", url, table)
