"""A database of the release that counted no requests in its ledger becomes one that does."""

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

BEFORE = "0019"
_COUNTED = (
    "insert into quota_counters (subject, starts, tokens, micro_credits) values ('acc', %(day)s, 40, 4),"
    " ('key_1', %(day)s, 40, 4)"
)
_BORROWED = (
    "insert into blocks (id, account_id, key_id, day, holder, tokens, images, micro_credits, settled_tokens,"
    " settled_micro_credits, returned_tokens, returned_micro_credits, expires_at, closed_at) values"
    " (%(block)s, 'acc', 'key_1', %(day)s, 'h', 100, 0, 10, 40, 4, 60, 6, %(at)s, %(at)s)"
)
_ROW = (
    "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images, micro_credits, operation,"
    " provider, model, prompt_tokens, completion_tokens, at, reserved_tokens, reserved_images, reserved_micro_credits)"
    " values (%(kind)s, 'acc', 'key_1', %(day)s, %(block)s, %(reference)s, %(tokens)s, 0, %(micro_credits)s, 1,"
    " %(provider)s, 'm', 30, 10, %(at)s, 50, 0, 5)"
)


def spend(link: psycopg.Connection[Any], day: str) -> str:
    """Book 40 tokens and 4 millionths of a credit of a block, as the release before does; return the block."""
    block, at = str(uuid4()), f"{day}T12:00:00Z"
    link.execute(_COUNTED, {"day": day})
    link.execute(_BORROWED, {"block": block, "day": day, "at": at})
    for kind, tokens, provider in (("borrow", 100, None), ("settle", 40, "p"), ("return", 60, None)):
        told = {"kind": kind, "tokens": tokens, "micro_credits": tokens // 10, "provider": provider}
        link.execute(_ROW, {**told, "day": day, "block": block, "reference": f"{uuid4()}.1.50.0.0.5", "at": at})
    return block


@pytest.fixture
def before(database: Database) -> str:
    """A database of the release before: two days, one of which was audited and then removed but for its sums."""
    url = copied(database, SCHEMA, BEFORE)
    with psycopg.connect(url) as link:
        link.execute(
            "insert into accounts (id, role, tokens_a_day, images_a_day, key_count, micro_credits, unlimited)"
            " values ('acc', 'service', 500, 5, 1, 7, true)"
        )
        link.execute("insert into credits (account_id, reference, micro_credits) values ('acc', 'paid', 7)")
        link.execute("insert into keys (id, account_id, prefix, digest) values ('key_1', 'acc', '', '1')")
        old = spend(link, "2026-01-31")
        spend(link, "2026-02-01")
        # Rows, then what was borrowed, settled, returned and charged late, by dimension.
        sums = [6, 200, 0, 0, 20, 80, 0, 0, 8, 120, 0, 0, 12, 0, 0, 0, 0]
        link.execute("insert into audit_position (upto, sums) select max(id), %s from ledger", (sums,))
        link.execute("delete from ledger where block_id = %s", (old,))
        link.execute("delete from blocks where id = %s", (old,))
    return url


async def balanced(url: str, days: int) -> None:
    """Check what is new, then everything: the books balance, and tell of 40 tokens and no requests a day."""
    for whole in (False, True):
        found = await Checker(url).check(whole=whole)
        assert not found.faults
        assert found.totals["tokens"] == {
            "borrowed": 100 * days,
            "spent": 40 * days,
            "returned": 60 * days,
            "outstanding": 0,
        }
        assert found.totals["micro_credits"]["spent"] == 4 * days
        assert found.totals["requests"] == {"borrowed": 0, "spent": 0, "returned": 0, "outstanding": 0}


async def test_the_books_go_on_with_requests_and_the_release_before_beside_them(before: str) -> None:
    """Sums that stay, how far audits are, limits and removed rows are as they were, with no requests in them."""
    migrate(before)
    with psycopg.connect(before) as link:
        limits = "select tokens_a_day, requests_a_day, micro_credits_in_total from subject_limits order by subject"
        assert link.execute(limits).fetchall() == [(None, None, 7), (None, None, None)]
        names = link.execute("select name from dimensions order by position").fetchall()
        assert [name for (name,) in names] == ["tokens", "images", "nano_usd", "micro_credits", "requests"]
    await balanced(before, 2)
    with psycopg.connect(before) as link:
        block = spend(link, "2026-02-02")
        rows = link.execute(
            "select tokens, micro_credits, requests from quota_counters where subject = 'acc' and period = 'total'"
        ).fetchall()
        assert rows == [(120, 12, 0)]
        used = "select requests, charged_tokens, charged_micro_credits, charged_requests from usage_days order by day"
        assert link.execute(used).fetchall() == [(1, 40, 4, 0)] * 3
    await balanced(before, 3)
    with psycopg.connect(before) as link:
        link.execute("delete from ledger where block_id = %s", (block,))
        link.execute("delete from blocks where id = %s", (block,))
        kept = (
            "select settled_tokens, settled_micro_credits, settled_requests from ledger_carried where subject = 'acc'"
        )
        assert link.execute(kept).fetchall() == [(40, 4, 0)] * 2


@pytest.fixture
def killed(before: str) -> str:
    """The database, after a process that changed it was killed in the middle of that."""
    killed_migration(before, "ledger_carried")
    return before


async def test_a_kill_amid_the_change_leaves_the_release_before(killed: str) -> None:
    """What counts requests is not there, the release before goes on, and whoever starts next makes the change."""
    migrations.upgrade(killed, SCHEMA, "0020")
    with psycopg.connect(killed) as link:
        assert link.execute("select version_num from alembic_version").fetchall() == [("0020",)]
        assert link.execute("select count(*) from dimensions").fetchall() == [(4,)]
        spend(link, "2026-02-03")
    migrate(killed)
    await balanced(killed, 3)
