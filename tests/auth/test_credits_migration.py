"""A database of the release that counted no credits in its ledger becomes one that does."""

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

BEFORE = "0016"
_COUNTED = (
    "insert into quota_counters (subject, starts, tokens, nano_usd) values ('acc', %(day)s, 40, 400),"
    " ('key_1', %(day)s, 40, 400)"
)
_BORROWED = (
    "insert into blocks (id, account_id, key_id, day, holder, tokens, images, nano_usd, settled_tokens,"
    " settled_nano_usd, returned_tokens, returned_nano_usd, expires_at, closed_at) values"
    " (%(block)s, 'acc', 'key_1', %(day)s, 'h', 100, 0, 1000, 40, 400, 60, 600, %(at)s, %(at)s)"
)
_ROW = (
    "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images, nano_usd, operation,"
    " provider, model, prompt_tokens, completion_tokens, at, reserved_tokens, reserved_images, reserved_nano_usd)"
    " values (%(kind)s, 'acc', 'key_1', %(day)s, %(block)s, %(reference)s, %(tokens)s, 0, %(nano_usd)s, 1,"
    " %(provider)s, 'm', 30, 10, %(at)s, 50, 0, 500)"
)


def spend(link: psycopg.Connection[Any], day: str, at: str) -> str:
    """Book 40 tokens and 400 nano-dollars of a block, as the release before does; return the block."""
    block = str(uuid4())
    link.execute(_COUNTED, {"day": day})
    link.execute(_BORROWED, {"block": block, "day": day, "at": at})
    for kind, tokens, provider in (("borrow", 100, None), ("settle", 40, "p"), ("return", 60, None)):
        told = {"kind": kind, "tokens": tokens, "nano_usd": tokens * 10, "provider": provider}
        link.execute(_ROW, {**told, "day": day, "block": block, "reference": f"{uuid4()}.1.50.0.500", "at": at})
    return block


@pytest.fixture
async def before(database: Database) -> str:
    """A database of the release before: two days, one of which was audited and then removed but for its sums."""
    url = copied(database, SCHEMA, BEFORE)
    with psycopg.connect(url) as link:
        link.execute(
            "insert into accounts (id, role, tokens_a_day, images_a_day, key_count, micro_credits)"
            " values ('acc', 'user', 500, 5, 1, 7)"
        )
        link.execute("insert into credits (account_id, reference, micro_credits) values ('acc', 'paid', 7)")
        link.execute("insert into keys (id, account_id, prefix, digest) values ('key_1', 'acc', '', '1')")
        old = spend(link, "2026-01-31", "2026-01-31T12:00:00Z")
        spend(link, "2026-02-01", "2026-02-01T12:00:00Z")
        last, *sums = (
            link.execute(
                "select max(id), count(*), sum(tokens) filter (where kind = 'borrow'),"
                " sum(nano_usd) filter (where kind = 'borrow'), sum(tokens) filter (where kind = 'settle'),"
                " sum(nano_usd) filter (where kind = 'settle'), sum(tokens) filter (where kind = 'return'),"
                " sum(nano_usd) filter (where kind = 'return') from ledger"
            ).fetchone()
            or ()
        )
        rows, borrowed, borrowed_usd, settled, settled_usd, returned, returned_usd = map(int, sums)
        position = [rows, borrowed, 0, borrowed_usd, settled, 0, settled_usd, returned, 0, returned_usd, 0, 0, 0]
        link.execute("insert into audit_position (upto, sums) values (%s, %s)", (last, position))
        link.execute("delete from ledger where block_id = %s", (old,))
        link.execute("delete from blocks where id = %s", (old,))
        assert link.execute("select settled_tokens, settled_nano_usd from ledger_carried where subject = 'acc'")
    return url


async def balanced(url: str) -> None:
    """Check what is new, then everything: the books balance, and tell of 40 tokens and 400 nano-dollars a day."""
    for whole in (False, True):
        found = await Checker(url).check(whole=whole)
        assert not found.faults
        days = found.rows // 3
        assert found.totals["tokens"]["spent"] == 40 * days
        assert found.totals["micro_credits"] == {"borrowed": 0, "spent": 0, "returned": 0, "outstanding": 0}
    assert found.totals["nano_usd"]["spent"] == 400 * days


async def test_dollars_of_removed_rows_are_found_again_and_the_release_before_goes_on_beside_it(before: str) -> None:
    """It left them out of the sums that stay; the books balance after the change. What its processes write then moves
    no credits, and counts in every period."""
    with psycopg.connect(before) as link:
        assert link.execute("select distinct settled_nano_usd from ledger_carried").fetchall() == [(0,)]
    migrate(before)
    with psycopg.connect(before) as link:
        rows = link.execute("select subject, settled_nano_usd from ledger_carried order by 1").fetchall()
        assert rows == [("acc", 400), ("key_1", 400)]
        assert link.execute(
            "select subject, kind from quota_counters where period = 'total' order by 1"
        ).fetchall() == [
            ("acc", "account"),
            ("key_1", "key"),
        ]
    await balanced(before)
    with psycopg.connect(before) as link:
        spend(link, "2026-02-02", "2026-02-02T12:00:00Z")
        rows = link.execute(
            "select tokens, nano_usd, micro_credits from quota_counters where subject = 'acc' and period = 'total'"
        ).fetchall()
    assert rows == [(120, 1200, 0)]
    await balanced(before)


@pytest.fixture
def killed(before: str) -> str:
    """The database, after a process that changed it was killed in the middle of that."""
    killed_migration(before, "ledger_carried")
    return before


async def test_a_kill_amid_the_change_leaves_the_release_before(killed: str) -> None:
    """Everything is as it was, the release before goes on, and the change is made by whoever starts next."""
    migrations.upgrade(killed, SCHEMA, BEFORE)
    with psycopg.connect(killed) as link:
        assert link.execute("select version_num from alembic_version").fetchall() == [(BEFORE,)]
        assert link.execute("select to_regclass('subject_limits')").fetchall() == [(None,)]
        spend(link, "2026-02-03", "2026-02-03T12:00:00Z")
    migrate(killed)
    await balanced(killed)
