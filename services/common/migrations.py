"""A database's schema, brought up to date by numbered files of SQL.

Each file is applied in a transaction of its own, together with the version that it leaves. Every such transaction first
takes the schema's advisory lock and reads the version anew, so that several processes may do it at once. The version
stands where Alembic kept it, so that databases of earlier releases go on.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from services.common import logs

_NAME: Final = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The schema cannot be brought up to date. The message says why, without data."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema, and what makes it."""

    folder: Path
    """Where its migrations lie: in `versions` a file `NNNN_name.sql` for each, numbered from 0001 without gaps."""
    table: tuple[str, ...]
    """The table that holds the version, by its own name or with its schema's before it."""
    lock: int
    """The advisory lock under which it is changed; each schema of a database has another."""
    works_from: str | None = None
    """The last migration of the oldest release that works with the schema as this one leaves it. Its processes and
    later ones start on it, amid an upgrade and after it is taken back. None: nothing older than this release does."""

    def migrations(self) -> dict[str, Path]:
        """Return the migrations by number, in order. Raises MigrationError where a file is not one."""
        results: dict[str, Path] = {}
        for path in sorted((self.folder / "versions").iterdir()):
            if path.name.startswith("__"):
                continue
            named = _NAME.fullmatch(path.name)
            if named is None or int(named["number"]) != len(results) + 1:
                raise MigrationError(f"{path.name} is not the next migration: {len(results) + 1:04}_name.sql")
            results[named["number"]] = path
        return results

    @property
    def name(self) -> sql.Identifier:
        """The version's table."""
        return sql.Identifier(*self.table)


def upgrade(url: str, schema: Schema, revision: str | None = None) -> list[str]:
    """Apply what is missing up to a revision, all without one; return what was applied.

    A schema of a newer release that works with this one is left as it is. Raises psycopg.OperationalError where the
    database cannot be reached, MigrationError where it cannot be changed.
    """
    migrations = schema.migrations()
    applied: list[str] = []
    with psycopg.connect(url, connect_timeout=5, autocommit=True) as link:
        _check(link)
        while (next_one := _missing(link, schema, migrations, revision)) is not None:
            # Looked up again under the lock: another process may have applied it meanwhile.
            with link.transaction():
                _prepare(link, schema)
                if _missing(link, schema, migrations, revision) == next_one:
                    _apply(link, schema, next_one, migrations[next_one])
                    applied.append(next_one)
        if _version(link, schema) == max(migrations) and _works_from(link, schema) != schema.works_from:
            with link.transaction():
                _prepare(link, schema)
                # Another process of a newer release may have gone on meanwhile.
                link.execute(
                    sql.SQL("update {} set works_from = %s where version_num = %s").format(schema.name),
                    [schema.works_from, max(migrations)],
                )
    return applied


def migrate(url: str, schema: Schema) -> None:
    """Apply what is missing, if anything is; return when the schema is that of this code.

    Raises psycopg.OperationalError where the database cannot be reached, SystemExit where it cannot be changed.
    """
    try:
        applied = upgrade(url, schema)
    except MigrationError as error:
        raise SystemExit(f"the database's schema cannot be brought up to date: {error}") from error
    if applied:
        logs.get("migrations").info("schema.updated", folder=schema.folder.parent.name, applied=applied)


async def bring_up_to_date(url: str, schema: Schema) -> None:
    """Do so without holding up others; raises as `migrate`."""
    await asyncio.to_thread(migrate, url, schema)


def _check(link: psycopg.Connection) -> None:
    """Refuse a database whose texts come back as bytes, or that cannot hold every text."""
    encoding = link.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise MigrationError(
            f"the database {link.info.dbname} is in {encoding}, and UTF8 is needed; make another: "
            f"createdb --encoding UTF8 --template template0 NAME"
        )


def _version(link: psycopg.Connection, schema: Schema) -> str | None:
    """Return the version that the database has; None where it has none yet."""
    result = link.execute("select to_regclass(%s) is not null", [schema.name.as_string(link)]).fetchone()
    if result is None or not result[0]:
        return None
    row = link.execute(sql.SQL("select version_num from {}").format(schema.name)).fetchone()
    return row[0] if row is not None else None


def _works_from(link: psycopg.Connection, schema: Schema) -> str | None:
    """Return what the last migration's release wrote of older ones; None where it wrote nothing."""
    # By its name in the row: a database that has not been written to since has no such column.
    query = sql.SQL("select to_jsonb(written) ->> 'works_from' from {} written").format(schema.name)
    row = link.execute(query).fetchone()
    return row[0] if row is not None else None


def _missing(link: psycopg.Connection, schema: Schema, migrations: dict[str, Path], revision: str | None) -> str | None:
    """Return the number that follows the database's version, None where nothing is missing."""
    version, last = _version(link, schema), revision or max(migrations)
    if version is not None and version not in migrations:
        works_from = _works_from(link, schema)
        if works_from is None or works_from > max(migrations):
            raise MigrationError(f"it is of version {version}, which this release does not know; start a newer release")
        logs.get("migrations").info("schema.newer", folder=schema.folder.parent.name, version=version)
        return None
    return next((number for number in migrations if (version is None or number > version) and number <= last), None)


def _prepare(link: psycopg.Connection, schema: Schema) -> None:
    """Take the schema's lock until the transaction ends, and make the version's table."""
    link.execute("select pg_advisory_xact_lock(%s)", [schema.lock])
    for outer in schema.table[:-1]:
        link.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(outer)))
    table = sql.SQL(
        "create table if not exists {} (version_num varchar(32) constraint alembic_version_pkc primary key)"
    )
    link.execute(table.format(schema.name))
    link.execute(sql.SQL("alter table {} add column if not exists works_from varchar(32)").format(schema.name))


def _apply(link: psycopg.Connection, schema: Schema, number: str, path: Path) -> None:
    try:
        link.execute(path.read_bytes())
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise MigrationError(f"{path.name}: {error.diag.message_primary or type(error).__name__}") from error
    link.execute(sql.SQL("delete from {}").format(schema.name))
    row = [number, schema.works_from]
    link.execute(sql.SQL("insert into {} (version_num, works_from) values (%s, %s)").format(schema.name), row)
