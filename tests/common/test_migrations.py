"""Migrations: numbered files of SQL, each in a transaction, by one process at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from deploy.local.database import Database
from services.auth.migrations import SCHEMA as AUTH
from services.common.migrations import MigrationError, Schema, migrate, upgrade
from services.tasks.migrate import SCHEMA as TASKS

BOTH = [AUTH, TASKS]


def schema(
    folder: Path, *files: str, table: tuple[str, ...] = ("alembic_version",), works_from: str | None = None
) -> Schema:
    """Write migrations 0001, 0002, …; return their schema."""
    folder.mkdir(exist_ok=True)
    (folder / "versions").mkdir(exist_ok=True)
    for number, text in enumerate(files, 1):
        (folder / "versions" / f"{number:04}_x.sql").write_text(text)
    return Schema(folder, table=table, lock=7, works_from=works_from)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as link:
        return link.execute(query.encode()).fetchall()


def test_a_database_that_alembic_made_goes_on(database: Database, tmp_path: Path) -> None:
    """The version that Alembic wrote is read, only later migrations are applied, and its one row is moved on."""
    url = database.create("t_migrations_alembic")
    with psycopg.connect(url) as link:
        link.execute("create table alembic_version (version_num varchar(32) not null)")
        link.execute("alter table alembic_version add constraint alembic_version_pkc primary key (version_num)")
        link.execute("insert into alembic_version values ('0001')")
        link.execute("create table a (x int)")
    made = schema(tmp_path, "create table a (x int);", "alter table a add y int; insert into a values (1, 2);")
    assert upgrade(url, made) == ["0002"]
    assert upgrade(url, made) == []
    assert rows(url, "select version_num from alembic_version") == [("0002",)]
    assert rows(url, "select x, y from a") == [(1, 2)]


def test_a_failing_migration_leaves_the_one_before(database: Database, tmp_path: Path) -> None:
    """Each is whole or not at all: the version names the last whole one, and the message names the file."""
    url = database.create("t_migrations_failing")
    made = schema(tmp_path, "create table a (x int);", "create table b (x int); create table a (x int);")
    with pytest.raises(MigrationError, match=r'0002_x\.sql: relation "a" already exists'):
        upgrade(url, made)
    assert rows(url, "select version_num from alembic_version") == [("0001",)]
    assert rows(url, "select to_regclass('a') is null, to_regclass('b') is null") == [(False, True)]
    with pytest.raises(SystemExit, match=r"cannot be brought up to date: 0002_x\.sql"):
        migrate(url, made)


def test_processes_that_start_together_apply_each_once(database: Database, tmp_path: Path) -> None:
    """Eight at once: every migration is applied by one of them, and all return when all are applied."""
    url = database.create("t_migrations_together")
    files = ["create table a (x int);", *(f"insert into a values ({number});" for number in range(2, 9))]
    made = schema(tmp_path, *files, table=("apart", "alembic_version"))
    with ThreadPoolExecutor(8) as threads:
        applied = [number for each in threads.map(lambda _: upgrade(url, made), range(8)) for number in each]
    assert sorted(applied) == [f"{number:04}" for number in range(1, 9)]
    assert rows(url, "select x from a order by x") == [(number,) for number in range(2, 9)]
    assert rows(url, "select version_num from apart.alembic_version") == [("0008",)]


def test_a_newer_database_is_left_alone(database: Database, tmp_path: Path) -> None:
    """An older release does not touch what a newer one made, and says so."""
    url = database.create("t_migrations_newer")
    made = schema(tmp_path, "create table a (x int);")
    upgrade(url, made)
    with psycopg.connect(url) as link:
        link.execute("update alembic_version set version_num = '0002'")
    with pytest.raises(MigrationError, match="of version 0002, which this release does not know"):
        upgrade(url, made)


FILES = ["create table a (x int);", "alter table a add y int;", "alter table a add z int;"]


def test_an_older_release_starts_where_it_works(database: Database, tmp_path: Path) -> None:
    """Amid an upgrade, and when it was taken back: a release starts on the schema of a later one that says so, and
    changes nothing; one that is older than that does not."""
    url = database.create("t_migrations_works_from")
    older, old, new = (
        schema(tmp_path / name, *FILES[:count], works_from="0002")
        for name, count in (("older", 1), ("old", 2), ("new", 3))
    )
    upgrade(url, new)
    assert upgrade(url, old) == []
    assert rows(url, "select version_num, works_from from alembic_version") == [("0003", "0002")]
    with pytest.raises(MigrationError, match="of version 0003, which this release does not know"):
        upgrade(url, older)
    assert upgrade(url, new) == []


def test_a_database_of_before_learns_who_works_with_it(database: Database, tmp_path: Path) -> None:
    """Where nothing is to be migrated it is written down all the same, and by the newest release alone."""
    url = database.create("t_migrations_learns")
    upgrade(url, schema(tmp_path / "before", *FILES))
    with psycopg.connect(url) as link:
        link.execute("alter table alembic_version drop column works_from")
    with pytest.raises(MigrationError):
        upgrade(url, schema(tmp_path / "old", *FILES[:2], works_from="0001"))
    assert upgrade(url, schema(tmp_path / "new", *FILES, works_from="0002")) == []
    assert upgrade(url, schema(tmp_path / "old", works_from="0001")) == []
    assert rows(url, "select version_num, works_from from alembic_version") == [("0003", "0002")]


@pytest.mark.parametrize("name", ["0003_x.sql", "0002_x.py", "notes.sql", "0002-x.sql"])
def test_every_file_is_the_next_migration(tmp_path: Path, name: str) -> None:
    """A gap, a name of another form or a file of another kind is refused: it would be passed over."""
    made = schema(tmp_path, "select 1;")
    (tmp_path / "versions" / name).write_text("")
    with pytest.raises(MigrationError, match=f"{name} is not the next migration: 0002_name.sql"):
        made.migrations()


@pytest.mark.parametrize("made", BOTH, ids=lambda each: each.folder.parent.name)
def test_a_database_of_another_encoding_is_refused_with_what_to_do(database: Database, made: Schema) -> None:
    """SQL_ASCII gives texts back as bytes; the start ends in a sentence with the command, and nothing is made."""
    name = f"t_migrations_ascii_{made.table[0]}"
    with psycopg.connect(database.url(), autocommit=True) as link:
        link.execute(f"create database {name} encoding 'SQL_ASCII' locale 'C' template template0".encode())
    url = database.url(name)
    with pytest.raises(
        SystemExit, match=r"is in SQL_ASCII, and UTF8 is needed; make another: createdb --encoding UTF8"
    ):
        migrate(url, made)
    assert rows(url, "select count(*) from pg_tables where schemaname in ('public', 'tasks')") == [(0,)]


def test_shipped_schemas_have_locks_of_their_own() -> None:
    """Two schemas of one database do not wait for each other, and every shipped file is a migration."""
    assert len({each.lock for each in BOTH}) == len(BOTH)
    assert all(each.migrations() for each in BOTH)
