"""The audit takes its time, goes on where the last one ended, and does not pass over what it found."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from deploy.local.database import Database
from services.auth.adapters import checks
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import AUDIT_LOCK, Checker
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.verified_keys import VerifiedKeys
from services.quota_client.amounts import Amount
from tests.auth.asking import PEPPER
from tests.auth.conftest import Auth
from tests.databases import books


@pytest.fixture
async def auth(database: Database) -> AsyncIterator[Auth]:
    """Books of their own for each test: how far an audit is concerns all of them."""
    url = books(database)
    postgres = Postgres(url, size=1, wait_s=20)
    await postgres.open()
    yield Auth(url, postgres, Accounts(postgres), Keys(postgres), 0, 0, AsyncExitStack())
    await postgres.close()


async def booked(auth: Auth, blocks: int, *, old: bool = True) -> str:
    """Borrow blocks for a new account, an hour ago or now; give the account."""
    account, key_id, _ = await auth.account()
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    ledger, amount = Ledger(auth.postgres, grace_s=10, alive_s=20), Amount(tokens=10)
    for _ in range(blocks):
        assert await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=3600)
    if old:
        with psycopg.connect(auth.url) as link:
            link.execute("alter table ledger disable trigger ledger_append_only")
            link.execute("update ledger set at = at - interval '1 hour'")
            link.execute("alter table ledger enable trigger ledger_append_only")
    return account


async def test_an_audit_begins_where_the_last_one_ended(auth: Auth) -> None:
    """Only rows that were booked since are checked, yet the sums are of all; what is a moment old is checked again."""
    await booked(auth, 7)
    steps: list[tuple[int, int]] = []
    checker = Checker(auth.url, rows_a_step=3)
    found = await checker.check(told=lambda *at: steps.append(at))
    assert (found.faults, found.rows, found.totals["tokens"]["outstanding"]) == ({}, 7, 70)
    assert steps == [(0, 7), (3, 7), (6, 7), (7, 7)]
    await booked(auth, 2, old=False)
    for _ in range(2):
        steps.clear()
        found = await checker.check(told=lambda *at: steps.append(at))
        assert (found.faults, found.rows, found.totals["tokens"]["outstanding"]) == ({}, 9, 90)
        assert steps == [(7, 9), (9, 9)]


async def test_an_interrupted_audit_is_gone_on_with(auth: Auth) -> None:
    """What had been checked is not checked again."""
    await booked(auth, 9)
    checker = Checker(auth.url, rows_a_step=3)

    def stop(at: int, last: int) -> None:
        if at == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await checker.check(told=stop)
    steps: list[int] = []
    assert (await checker.check(told=lambda at, _: steps.append(at))).rows == 9
    assert steps == [6, 9]


async def test_whoever_watches_an_audit_sees_at_once_that_it_runs(auth: Auth) -> None:
    """Its first steps are small and grow to their size; what is looked for in all there is is named beforehand."""
    await booked(auth, 9)
    steps: list[int] = []
    looked: list[str] = []
    await Checker(auth.url, rows_a_step=4, rows_at_first=1).check(
        told=lambda at, _: steps.append(at), looks=looked.append
    )
    assert steps == [0, 1, 3, 7, 9]
    assert looked == [*checks.OF_NOW, *checks.NOTES]
    looked.clear()
    await Checker(auth.url).check(whole=True, looks=looked.append)
    assert looked == [*checks.WHOLE, "the sums of all rows", *checks.OF_NOW, *checks.NOTES]


@pytest.mark.parametrize(
    "statement",
    [
        "update quota_days set tokens = tokens + {} where subject = %s",
        "update blocks set settled_tokens = settled_tokens + {}, returned_tokens = 0 where account_id = %s",
    ],
)
async def test_a_fault_is_found_until_it_is_mended(auth: Auth, statement: str) -> None:
    """An audit that finds something does not go past it: the next finds it too."""
    account = await booked(auth, 4)
    checker = Checker(auth.url, rows_a_step=2)
    with psycopg.connect(auth.url) as link:
        link.execute(statement.format(5).encode(), (account,))
    assert (await checker.check()).faults
    assert (await checker.check()).faults
    with psycopg.connect(auth.url) as link:
        link.execute(statement.format(-5).encode(), (account,))
    assert not (await checker.check()).faults
    assert auth.query("select upto from audit_position") == [(4,)]


async def test_what_no_row_has_to_do_with_is_found_by_a_full_audit(auth: Auth) -> None:
    """A counter that the ledger does not know of at all."""
    with psycopg.connect(auth.url) as link:
        link.execute("insert into quota_days (subject, day, tokens) values ('nobody', '2026-01-01', 5)")
    assert not (await Checker(auth.url).check()).faults
    assert list((await Checker(auth.url).check(whole=True)).faults) == ["a day's counter differs from the ledger"]


async def test_an_audit_is_not_cut_short(auth: Auth) -> None:
    """However long its statements take, and however short others' may."""
    await booked(auth, 3)
    with psycopg.connect(auth.url, autocommit=True) as link:
        link.execute(f"alter database {link.info.dbname} set statement_timeout = 1")
    for whole in (False, True):
        assert (await Checker(auth.url).check(whole=whole)).rows == 3


async def test_the_command_fails_when_the_books_do(auth: Auth) -> None:
    """Exit code 0 for books that balance; another for books that do not, and where they cannot be read."""
    account = await booked(auth, 1)

    async def run(url: str = auth.url, *arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.auth", "audit", *arguments),
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "MOA_KEY_PEPPER": PEPPER.decode(),
                "MOA_DATABASE_URL": url,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out.decode()

    code, out = await run()
    assert (code, out.splitlines()[-1]) == (0, "the ledger balances (1 rows)")
    with psycopg.connect(auth.url) as link:
        link.execute("update quota_days set tokens = tokens + 1 where subject = %s", (account,))
    codes = await asyncio.gather(run(auth.url, "--full", "--json"), run("postgresql://127.0.0.1:1/none"))
    assert all(code not in (0, None) for code, _ in codes)
    assert "a day's counter differs" in codes[0][1]


async def test_an_interrupted_command_says_so(auth: Auth, tmp_path: Path) -> None:
    """Ctrl-C ends `make audit` with a word and the exit code that shells know, without a trace."""
    (tmp_path / "secrets.env").write_text(f"MOA_KEY_PEPPER={PEPPER.decode()}\n")
    async with await psycopg.AsyncConnection.connect(auth.url, autocommit=True) as link:
        await link.execute("select pg_advisory_lock(%s)", (AUDIT_LOCK,))
        # Whoever runs the tests in a shell's background has it ignored, and all that is started inherits that.
        ours = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.local.tool", "audit"),
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "MOA_HOME": str(tmp_path),
                "MOA_DATABASE_URL": auth.url,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, ours)
        waiting = (
            "select 1 from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        async with asyncio.timeout(60):
            while not await (await link.execute(waiting)).fetchone():
                assert process.returncode is None
        os.killpg(process.pid, signal.SIGINT)
        _, said = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode()) == (128 + signal.SIGINT, "interrupted\n")
