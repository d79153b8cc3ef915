"""The embedded PostgreSQL starts, keeps its data, and ends with its owner."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deploy.local.database import Database, DatabaseError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Database]:
    server = Database(tmp_path / "data", durable=False)
    server.start()
    yield server
    server.stop()


def test_what_was_committed_outlives_a_stop_and_a_crash(server: Database) -> None:
    """Committed rows are there after a clean stop and after a crash."""
    with psycopg.connect(server.create("kept"), autocommit=True) as link:
        link.execute("create table t (n int)")
        link.execute("insert into t values (1)")
    server.stop()
    assert server.pid is None
    server.start()
    with psycopg.connect(server.url("kept"), autocommit=True) as link:
        link.execute("insert into t values (2)")
    server.kill()
    server.start()
    with psycopg.connect(server.url("kept")) as link:
        assert link.execute("select sum(n) from t").fetchone() == (3,)


def test_a_running_server_is_adopted(server: Database) -> None:
    """A second owner of the folder uses the server that runs there, and can stop it."""
    other = Database(server.folder, durable=False)
    other.start()
    assert other.pid == server.pid
    other.stop()
    assert server.pid is None


def test_the_server_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    """kill -9 of the owner stops the server cleanly, by itself."""
    folder = tmp_path / "data"
    script = (
        "import sys; from pathlib import Path; from deploy.local.database import Database; "
        "d = Database(Path(sys.argv[1]), durable=False); d.start(); print('up', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    server = Database(folder)
    assert server.pid is not None
    owner.kill()
    owner.communicate()
    until = time.monotonic() + 90
    while server.pid is not None and time.monotonic() < until:
        time.sleep(0.05)
    assert server.pid is None
    assert not (folder / "postmaster.pid").exists()


def test_a_long_path_still_works(tmp_path: Path) -> None:
    """A folder whose path is too long for a Unix socket is no obstacle."""
    server = Database(tmp_path / ("long" * 20) / "data", durable=False)
    server.start()
    with psycopg.connect(server.url()) as link:
        assert link.execute("select 1").fetchone() == (1,)
    server.stop()


def test_a_bad_folder_is_named(tmp_path: Path) -> None:
    """A start that cannot work says why in one sentence."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("9\n")
    with pytest.raises(DatabaseError, match="PostgreSQL ended at its start"):
        Database(folder).start()
