"""A database's schema, brought up to date by Alembic in a process of its own.

Alembic and SQLAlchemy take 20 MB for as long as a process lives, and are needed once. Run as
`python -m services.common.migrations <folder>`, with the database's URL on the standard input.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from services.common import logs


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema, and what makes it."""

    folder: Path
    """Where its migrations lie: `env.py`, and in `versions` a file for each, which begins with its number."""
    table: tuple[str, ...]
    """The table that holds the version, by its own name or with its schema's before it."""


def upgrade(url: str, folder: Path, revision: str = "head") -> None:
    """Apply what is missing up to a revision, in this process. Safe to run from several processes at once."""
    from alembic import command  # see above
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url.replace("postgresql://", "postgresql+psycopg://", 1)
    command.upgrade(config, revision)


async def bring_up_to_date(url: str, schema: Schema) -> None:
    """Apply what is missing, if anything is; return when the schema is that of this code.

    Raises psycopg.OperationalError where the database cannot be reached, SystemExit where a migration failed.
    """
    if await asyncio.to_thread(_is_current, url, schema):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(schema.folder), stdin=asyncio.subprocess.PIPE
    )
    await child.communicate(url.encode())
    if child.returncode:
        raise SystemExit("the database's schema cannot be brought up to date (the reason stands above)")
    logs.get("migrations").info("schema.updated", folder=schema.folder.parent.name)


def _is_current(url: str, schema: Schema) -> bool:
    newest = max(path.name.partition("_")[0] for path in (schema.folder / "versions").glob("[0-9]*.py"))
    query = sql.SQL("select version_num from {}").format(sql.Identifier(*schema.table))
    try:
        with psycopg.connect(url, connect_timeout=5) as link:
            row = link.execute(query).fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    return row is not None and row[0] == newest


if __name__ == "__main__":
    upgrade(sys.stdin.read().strip(), Path(sys.argv[1]))
