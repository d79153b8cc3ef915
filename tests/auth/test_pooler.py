"""Auth behind PgBouncer in transaction mode, where each transaction may run in another session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from deploy.local import backup
from services.auth.adapters.spend import Spend
from services.auth.domain.spend import read
from tests.auth.asking import audited, refused, reserve, settle, until
from tests.auth.conftest import Admit, Start
from tests.poolers import MISSING, pooler, program

_AT_ONCE = 12


@pytest.fixture(scope="module")
def pooled(migrated: str) -> Iterator[dict[str, Any]]:
    """The settings of a replica that shares two sessions of the database with everybody."""
    if program() is None:
        pytest.skip(MISSING)
    with pooler(migrated, size=2) as url:
        yield {"database_url": SecretStr(url), "database_session_url": SecretStr(migrated)}


async def test_auth_serves_through_a_pooler_in_transaction_mode(
    start: Start, admit: Admit, pooled: dict[str, Any]
) -> None:
    """Two replicas book exactly over two sessions, statements that come often included; changes are heard of, and each
    transaction has its time limits though none is kept in a session."""
    first, second = await start(**pooled), await start(**pooled)
    account_id, key_id, key = await first.account()
    routers = [await admit(first), await admit(second)]
    for _ in range(3):
        for reservation in await asyncio.gather(*(reserve(routers[n % 2], key, 100) for n in range(_AT_ONCE))):
            settle(reservation, 60)
    await until(lambda: first.spent(account_id) == (3 * _AT_ONCE * 60, 0))
    for auth in (first, second):
        async with auth.postgres.transaction() as link:
            cursor = await link.execute("select current_setting('statement_timeout'), current_setting('lock_timeout')")
            assert await cursor.fetchone() == ("5s", "3s")
    day, _ = await first.quota_day(account_id)
    report = read(["day,key"], day.isoformat(), day.isoformat(), account_id=account_id)
    spent = await Spend(first.postgres).read(report, limit=5)
    assert spent.total.spent.tokens == 3 * _AT_ONCE * 60
    await second.keys.revoke(account_id, key_id)
    await refused(routers[0], key)
    await audited(first.url)


def test_a_backup_goes_past_the_pooler(
    pooled: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What pg_dump sets in its session would be found by whoever is given that session next, the gateway too."""
    file = tmp_path / "moa.dump"
    monkeypatch.setenv("MOA_DATABASE_URL", pooled["database_url"].get_secret_value())
    monkeypatch.delenv("MOA_DATABASE_SESSION_URL", raising=False)
    assert backup.main(["save", str(file)]) == 1
    assert "a pooler is before the database" in capsys.readouterr().err
    assert not file.exists()
    monkeypatch.setenv("MOA_DATABASE_SESSION_URL", pooled["database_session_url"].get_secret_value())
    assert backup.main(["save", str(file)]) == 0
    assert file.stat().st_size > 0
