"""A database that was saved while it was used is restored elsewhere, and its books balance."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from deploy.local import backup
from deploy.local.database import Database
from tests.auth.asking import audited, reserve, settle, until
from tests.auth.conftest import Admit, Auth, started
from tests.auth.soak import had_the_rest


async def test_a_restored_database_balances_and_goes_on(
    auth: Auth, admit: Admit, database: Database, tmp_path: Path
) -> None:
    """Saved amid a request: keys work, what was booked is charged, what was open is given back, and a full audit finds
    nothing. The file is its owner's alone."""
    account_id, _, key = await auth.account(tokens=1_000)
    router = await admit(auth)
    settle(await reserve(router, key), 70)
    await until(lambda: auth.spent(account_id) == (70, 0))
    running = await reserve(router, key, 200)
    file = tmp_path / "moa.dump"
    assert backup.save(auth.url, file) == file.stat().st_size > 0
    assert file.stat().st_mode & 0o077 == 0
    settle(running, 200)

    url = database.create("restored")
    backup.restore(url, file)
    await audited(url)
    # Blocks of replicas that are not there end by their time.
    with psycopg.connect(url) as link:
        link.execute("update blocks set expires_at = now() - interval '1 minute'")
    other = await started(url, lease_s=1.0)
    try:
        assert other.spent(account_id) == (70, 0)
        assert await had_the_rest(other.address, key, url, account_id, 1_000, within_s=60)
        assert other.spent(account_id) == (1_000, 0)
        await audited(url)
    finally:
        await other.stack.aclose()
    with pytest.raises(backup.NotDone, match="not empty"):
        backup.restore(url, file)


def test_what_cannot_be_saved_leaves_no_file(tmp_path: Path) -> None:
    """A half of a file would be taken for a whole one, the day that it is needed."""
    with pytest.raises(backup.NotDone):
        backup.save("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1", tmp_path / "moa.dump")
    assert not list(tmp_path.iterdir())
