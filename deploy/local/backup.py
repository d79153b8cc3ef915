"""Save the database of the gateway into a file, or restore it from one.

`python -m deploy.local.backup save FILE`, `… restore FILE` (`make backup`, `make restore`). The database is that of
`MOA_DATABASE_SESSION_URL` or `MOA_DATABASE_URL`, else the embedded one, which may be running or not. A file is restored
only where nothing is. Keys are worth nothing without `MOA_KEY_PEPPER`: what `make run` made of secrets stands in
`secrets.env`, to be kept apart.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg

from deploy.local import keep
from deploy.local.database import Database, DatabaseError, binaries
from deploy.local.stack import REPOSITORY
from deploy.local.topology import DATABASE

_URL: Final = "MOA_DATABASE_URL"
_SESSION_URL: Final = "MOA_DATABASE_SESSION_URL"
_SCHEMAS: Final = "select count(*) from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"


class NotDone(Exception):
    """It could not be saved or restored. The message says why."""


def save(url: str, file: Path) -> int:
    """Write a consistent picture of a database into a file that its owner alone reads; return its bytes.

    Whoever uses the database goes on. Raises NotDone.
    """
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={part}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore(url: str, file: Path) -> None:
    """Fill an empty database with what was saved: all of it, or nothing. Raises NotDone."""
    if not file.is_file():
        raise NotDone(f"there is no file {file}")
    with psycopg.connect(url) as link:
        (count,) = link.execute(_SCHEMAS).fetchone() or (0,)
    if count:
        raise NotDone("the database is not empty; name a new one (MOA_HOME=… or MOA_DATABASE_URL=…)")
    shared = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    _run("pg_restore", url, *shared, str(file))


def _named() -> str:
    """Return the operator's own database, with sessions of its own; "" where none is named. Raises NotDone.

    `pg_dump` and `pg_restore` set what a session goes by. A pooler would hand their sessions to the gateway, which
    finds no table by them.
    """
    if url := os.environ.get(_SESSION_URL):
        return url
    if url := os.environ.get(_URL):
        with psycopg.connect(url, autocommit=True) as link:
            (pid,) = link.execute("select pg_backend_pid()").fetchone() or (0,)
            if pid != link.info.backend_pid:
                raise NotDone(f"a pooler is before the database; name the database itself: {_SESSION_URL}=…")
    return url or ""


def _run(name: str, url: str, *arguments: str) -> None:
    try:
        line = (_program(name, url), f"--dbname={url}", *arguments)
    except (DatabaseError, psycopg.Error) as error:
        raise NotDone(str(error)) from error
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotDone(done.stderr.strip() or f"{name} ended with {done.returncode}")


def _program(name: str, url: str) -> str:
    """Return the program of that name: who runs a server has its own, unless that is older, which no server serves."""
    own = shutil.which(name) if os.environ.get(_SESSION_URL) or os.environ.get(_URL) else None
    if own is not None:
        version = subprocess.run((own, "--version"), capture_output=True, text=True, check=False).stdout
        release = re.search(r"\d+", version)
        with psycopg.connect(url) as link:
            if release is not None and int(release[0]) >= link.info.server_version // 10_000:
                return own
    return str(binaries() / name)


def main(arguments: Sequence[str]) -> int:
    """Do it; return 0 when it was done."""
    if len(arguments) != 2 or arguments[0] not in ("save", "restore"):
        print("say `save FILE` or `restore FILE`", file=sys.stderr)
        return 2
    what, file = arguments[0], Path(arguments[1])
    root = Path(os.environ.get("MOA_HOME", REPOSITORY / ".moa")).absolute()
    database, starts = Database(root / DATABASE, follow=False), False
    try:
        url = _named()
        if not url:
            starts = database.pid is None
            if what == "save" and not database.folder.exists():
                raise NotDone(f"there is no gateway in {root}")
            keep.private_folder(root)
            database.start()
            url = database.create("moa")
        if what == "save":
            print(f"{save(url, file):,} bytes in {file}; keep {root / 'secrets.env'} too, elsewhere")
        else:
            restore(url, file)
            print(
                f"restored from {file}. Put the secrets.env that was saved with it into {root} before the first start: "
                "without its pepper no key works. Then `make audit ARGS=--full` checks the books"
            )
    except (NotDone, DatabaseError, psycopg.Error, OSError) as error:
        print(f"{what}: {error}", file=sys.stderr)
        return 1
    finally:
        if starts:
            stop_unused(database, root)
    return 0


def stop_unused(database: Database, root: Path) -> None:
    """Stop the embedded database, unless a gateway has been started meanwhile that has taken it over."""
    with keep.private_folder(root).joinpath("lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        database.stop()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
