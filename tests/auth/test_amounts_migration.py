"""A database of the release that counted tokens and images by day becomes one of amounts over periods."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from deploy.local.database import Database
from services.auth.adapters.checker import Checker
from services.auth.migrations import SCHEMA, migrate
from services.common import migrations
from tests.databases import copied
from tests.killing import killed_migration

BEFORE = "0015"
_BORROWED = (
    "insert into blocks (id, account_id, key_id, day, holder, tokens, images, settled_tokens, returned_tokens,"
    " expires_at, closed_at) values (%(block)s, 'acc', 'key_1', %(day)s, 'h', 100, 0, 40, 60, now(), now())"
)
_ROW = (
    "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images, operation, provider,"
    " model, prompt_tokens, completion_tokens) values (%(kind)s, 'acc', 'key_1', %(day)s, %(block)s, %(reference)s,"
    " %(tokens)s, 0, 1, %(provider)s, 'm', 30, 10)"
)
# As the release before writes them.
_MADE = "insert into quota_days (subject, day) select unnest(%s::text[]), %s on conflict do nothing"
_LOCKED = (
    "select subject, tokens, images from quota_days where day = %s and subject = any(%s) order by subject for update"
)
_MOVED = "update quota_days set tokens = tokens + %s, images = images + %s where day = %s and subject = any(%s)"


def spend(link: psycopg.Connection[Any], day: str) -> None:
    """Book 40 tokens of a block of 100, as the release before does."""
    whose = ["acc", "key_1"]
    link.execute(_MADE, (whose, day))
    assert len(link.execute(_LOCKED, (day, whose)).fetchall()) == 2
    link.execute(_MOVED, (40, 0, day, whose))
    block = uuid4()
    link.execute(_BORROWED, {"block": block, "day": day})
    for kind, tokens, provider in (("borrow", 100, None), ("settle", 40, "p"), ("return", 60, None)):
        reference = f"{uuid4()}.1.50.0"
        given = {
            "kind": kind,
            "day": day,
            "block": block,
            "reference": reference,
            "tokens": tokens,
            "provider": provider,
        }
        link.execute(_ROW, given)


@pytest.fixture
def before(database: Database) -> str:
    """A database of the release before, with two days of two months."""
    url = copied(database, SCHEMA, BEFORE)
    with psycopg.connect(url) as link:
        link.execute(
            "insert into accounts (id, role, tokens_a_day, images_a_day, key_count) values ('acc', 'user', 500, 5, 1)"
        )
        link.execute(
            "insert into keys (id, account_id, prefix, digest, requests_a_minute) values ('key_1', 'acc', '', '1', 0)"
        )
        for day in ("2026-11-30", "2026-12-01", "2026-12-02"):
            spend(link, day)
    return url


def counted(url: str, subject: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as link:
        return link.execute(
            "select period, starts::text, tokens from quota_counters where subject = %s and period <> 'day'"
            " order by 1, 2",
            (subject,),
        ).fetchall()


async def balanced(url: str) -> None:
    for whole in (False, True):
        assert not (await Checker(url).check(whole=whole)).faults


async def test_days_become_months_and_totals(before: str) -> None:
    """What was spent before counts in the months and the total; the books balance; 0 requests a minute are unset."""
    migrate(before)
    for subject in ("acc", "key_1"):
        assert counted(before, subject) == [
            ("month", "2026-11-01", 40),
            ("month", "2026-12-01", 80),
            ("total", "1970-01-01", 120),
        ]
    with psycopg.connect(before) as link:
        assert link.execute("select requests_a_minute from accounts").fetchall() == [(None,)]
        assert link.execute("select requests_a_minute from keys").fetchall() == [(None,)]
        assert link.execute("select tokens_a_day, nano_usd_a_month from accounts").fetchall() == [(500, None)]
    await balanced(before)


async def test_the_release_before_goes_on_beside_it(before: str) -> None:
    """What its processes write by day counts in the months and the total, too."""
    migrate(before)
    with psycopg.connect(before) as link:
        spend(link, "2026-12-31")
        spend(link, "2027-01-01")
    assert counted(before, "acc") == [
        ("month", "2026-11-01", 40),
        ("month", "2026-12-01", 120),
        ("month", "2027-01-01", 40),
        ("total", "1970-01-01", 200),
    ]
    await balanced(before)


@pytest.fixture
def killed(before: str) -> str:
    """The database, after a process that changed it was killed in the middle of that."""
    killed_migration(before, "usage_days")
    return before


async def test_a_kill_amid_the_change_leaves_the_release_before(killed: str) -> None:
    """Everything is as it was, the release before goes on, and the change is made by whoever starts next."""
    migrations.upgrade(killed, SCHEMA, BEFORE)
    with psycopg.connect(killed) as link:
        assert link.execute("select version_num from alembic_version").fetchall() == [(BEFORE,)]
        assert link.execute("select to_regclass('quota_counters')").fetchall() == [(None,)]
        spend(link, "2026-12-03")
    migrate(killed)
    assert counted(killed, "acc")[1:] == [("month", "2026-12-01", 120), ("total", "1970-01-01", 160)]
    await balanced(killed)
