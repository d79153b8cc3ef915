"""A process that is killed while it waits for a table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psycopg

from tests import waiting

_WAITING = "select pid from pg_locks where not granted and relation = %s::regclass"
_TRANSACTIONS = "select pid, xact_start from pg_stat_activity where pid = any(%s)"


def killed_at(code: str, url: str, table: str, *, mode: str = "access share") -> None:
    """Run code in a process, and kill it while it waits for a table that this holds in a lock mode of PostgreSQL's.

    On return its transaction is over: until the server notices, it goes on with what it was sent, and holds its locks.
    """
    with psycopg.connect(url, autocommit=True) as watch:
        with psycopg.connect(url) as holder:
            holder.execute(f"lock table {table} in {mode} mode".encode())
            running = subprocess.Popen(
                [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
            )
            pauses, until = waiting.pauses(), time.monotonic() + 60
            while not (pids := [pid for (pid,) in watch.execute(_WAITING, (table,)).fetchall()]):
                assert running.poll() is None
                assert time.monotonic() < until
                time.sleep(next(pauses))
            transactions = set(watch.execute(_TRANSACTIONS, (pids,)).fetchall())
            running.send_signal(signal.SIGKILL)
            running.wait()
        while transactions & set(watch.execute(_TRANSACTIONS, (pids,)).fetchall()):
            assert time.monotonic() < until
            time.sleep(next(pauses))


def killed_migration(url: str, table: str) -> None:
    """Let a process bring auth's database up to date, and kill it at a table that it comes to late."""
    killed_at(f"from services.auth.migrations import migrate; migrate({url!r})", url, table)
