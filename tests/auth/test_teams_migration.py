"""A database of the release that knew no teams, or no budgets, becomes one that has them."""

from __future__ import annotations

import psycopg
import pytest

from deploy.local.database import Database
from services.auth.migrations import SCHEMA, migrate
from services.common import migrations
from tests.auth.test_requests_migration import balanced, spend
from tests.databases import copied
from tests.killing import killed_migration

BEFORE = "0024"
BEFORE_BUDGETS = "0026"
_LIMITS = "select subject, kind, tokens_a_day, requests_a_month, micro_credits_in_total from subject_limits order by 1"


@pytest.fixture
def before(database: Database) -> str:
    """A database of the release before: an account and a key that have used some of their limits, and an invitation."""
    url = copied(database, SCHEMA, BEFORE)
    with psycopg.connect(url) as link:
        link.execute(
            "insert into accounts (id, role, tokens_a_day, requests_a_month, key_count, micro_credits)"
            " values ('acc', 'user', 500, 7, 1, 7)"
        )
        link.execute("insert into credits (account_id, reference, micro_credits) values ('acc', 'paid', 7)")
        link.execute(
            "insert into keys (id, account_id, prefix, digest, tokens_a_day) values ('key_1', 'acc', '', '1', 90)"
        )
        link.execute("insert into invitations (digest, made_by, expires_at) values ('\\x01', 'acc', now())")
        spend(link, "2026-02-01")
    return url


async def test_books_and_limits_go_on_with_teams_and_the_release_before_beside_them(before: str) -> None:
    """Limits and sums are as they were; the release before goes on booking; a new dimension has limits of teams."""
    with psycopg.connect(before) as link:
        limits = link.execute(_LIMITS).fetchall()
    migrate(before)
    with psycopg.connect(before) as link:
        assert link.execute(_LIMITS).fetchall() == limits
        ((invitation_id,),) = link.execute("select id from invitations").fetchall()
        assert invitation_id.startswith("inv_")
        spend(link, "2026-02-02")
    await balanced(before, 2)
    with psycopg.connect(before) as link:
        link.execute("insert into teams (id, name, account_id, tokens_a_day) values ('team_1', 'x', 'acc', 5)")
        assert ("team_1", "team", 5, None, None) in link.execute(_LIMITS).fetchall()
        link.execute("call add_dimension('seconds', true)")
        link.execute("update teams set seconds_a_day = 3")
        rows = link.execute("select seconds_a_day from subject_limits where subject = 'team_1'").fetchall()
        assert rows == [(3,)]
        link.rollback()


@pytest.fixture
def killed(before: str) -> str:
    """The database, after a process that changed it was killed in the middle of that."""
    killed_migration(before, "invitations")
    return before


async def test_a_kill_amid_the_change_leaves_the_release_before(killed: str) -> None:
    """There are no teams, the release before goes on, and whoever starts next makes the change."""
    with psycopg.connect(killed) as link:
        assert link.execute("select version_num from alembic_version").fetchall() == [(BEFORE,)]
        assert link.execute("select to_regclass('teams')").fetchall() == [(None,)]
        spend(link, "2026-02-03")
    migrate(killed)
    await balanced(killed, 2)


async def test_a_kill_amid_the_change_that_brings_budgets_leaves_teams(before: str) -> None:
    """There are no budgets, teams go on, and whoever starts next makes the change, with limits as they were."""
    migrations.upgrade(before, SCHEMA, BEFORE_BUDGETS)
    killed_migration(before, "blocks")
    with psycopg.connect(before) as link:
        assert link.execute("select to_regclass('budgets')").fetchall() == [(None,)]
        link.execute("insert into teams (id, account_id, tokens_a_day) values ('team_1', 'acc', 5)")
        spend(link, "2026-02-03")
        limits = link.execute(_LIMITS).fetchall()
    migrate(before)
    await balanced(before, 2)
    with psycopg.connect(before) as link:
        assert link.execute(_LIMITS).fetchall() == limits
        link.execute("insert into budgets (id, owner, images_in_total) values ('budget_1', 'acc', 3)")
        rows = link.execute("select kind, images_in_total from subject_limits where subject = 'budget_1'").fetchall()
        assert rows == [("budget", 3)]
        link.execute("update budgets set deleted_at = now()")
        spend(link, "2026-02-04")
    await balanced(before, 3)
