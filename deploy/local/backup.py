"""Save the database of the gateway into a file, or restore it from one.

`python -m deploy.local.backup save FILE`, `… restore FILE` (`make backup`, `make restore`). The database is that of
`MOA_DATABASE_URL`, else the embedded one, which may be running or not. A file is restored only where nothing is. Keys
are worth nothing without `MOA_KEY_PEPPER`: what `make run` made of secrets stands in `secrets.env`, to be kept apart.
"""

from __future__ import annotations

import fcntl
import os
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
        _run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={part}", f"--dbname={url}")
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
    _run("pg_restore", *shared, f"--dbname={url}", str(file))


def _run(name: str, *arguments: str) -> None:
    # Of the server's own release or a later one; who runs another server has its programs.
    program = shutil.which(name) if os.environ.get("MOA_DATABASE_URL") else None
    try:
        line = (program or str(binaries() / name), *arguments)
    except DatabaseError as error:
        raise NotDone(str(error)) from error
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotDone(done.stderr.strip() or f"{name} ended with {done.returncode}")


def main(arguments: Sequence[str]) -> int:
    """Do it; return 0 when it was done."""
    if len(arguments) != 2 or arguments[0] not in ("save", "restore"):
        print("say `save FILE` or `restore FILE`", file=sys.stderr)
        return 2
    what, file = arguments[0], Path(arguments[1])
    root = Path(os.environ.get("MOA_HOME", REPOSITORY / ".moa")).absolute()
    url, database = os.environ.get("MOA_DATABASE_URL", ""), Database(root / DATABASE, follow=False)
    starts = not url and database.pid is None
    try:
        if not url:
            if what == "save" and not database.folder.exists():
                raise NotDone(f"there is no gateway in {root}")
            keep.private_folder(root)
            database.start()
            url = database.create("moa")
        if what == "save":
            print(f"{save(url, file):,} bytes in {file}; keep {root / 'secrets.env'} too, elsewhere")
        else:
            restore(url, file)
            print(f"restored from {file}; `make audit ARGS=--full` checks the books")
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
