"""What was used is summed up as it is booked: exactly, without waiting, and for what was booked before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import date
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from deploy.local.database import Database
from moa.account.v1 import account_pb2, account_service_pb2
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import Checker
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.usage import Usage
from services.auth.domain.records import UsageRecord
from services.auth.migrations import SCHEMA, migrate
from services.auth.usage_pages import page, read_groups
from services.common import migrations
from services.common.errors import InvalidField
from tests.auth.conftest import Auth

DAY, NEXT = date(2026, 11, 20), date(2026, 11, 21)
_ROWS: list[tuple[str, str, int, int, str, date]] = [
    ("settle", "a", 30, 0, "x", DAY),
    ("settle", "b", 12, 1, "x", DAY),
    ("settle", "c", 7, 0, "y", DAY),
    ("settle", "d", 5, 0, "x", NEXT),
    ("settle", "released", 0, 0, "", DAY),
    ("orphan", "e", 9, 0, "x", DAY),
    ("late", "e", -4, 0, "x", DAY),
    ("orphan", "f", 0, 0, "", DAY),
    ("late", "f", 3, 0, "x", DAY),
    ("return", "g", 50, 0, "", DAY),
]
_USED = [(NEXT, "x", 1, 5, 0), (DAY, "x", 4, 50, 1), (DAY, "y", 1, 7, 0)]


def book(link: psycopg.Connection[Any], account: str, rows: list[tuple[str, str, int, int, str, date]]) -> None:
    """Write rows of the ledger, each with as many tokens of a prompt as it charges, in one statement."""
    values: list[object] = []
    for kind, reference, tokens, images, model, day in rows:
        name = f"{account}-{reference}.1.999.9"
        values += (kind, account, day, uuid4(), name, tokens, images, model and "p", model, max(0, tokens))
    row = "(%s, %s, 'key_x', %s, %s, %s, %s, %s, 1, %s, %s, %s, 0)"
    link.execute(
        "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images, operation,"
        " provider, model, prompt_tokens, completion_tokens) values " + ", ".join([row] * len(rows)),
        values,
    )


async def paged(auth: Auth, account: str, size: int, group_by: Sequence[str] = ()) -> list[account_pb2.UsageRow]:
    """Read usage to its end, page by page."""
    found: list[account_pb2.UsageRow] = []
    ask = account_service_pb2.GetUsageRequest(
        from_day="2026-01-01", to_day="2026-12-31", page_size=size, group_by=group_by
    )
    while True:
        rows, ask.page_token = await page(Usage(auth.postgres), account, ask)
        found += rows
        assert len(rows) <= size
        if not ask.page_token:
            return found


def told(rows: list[UsageRecord]) -> list[tuple[date | None, str, int, int, int]]:
    return [(row.day, row.model, row.requests, row.charged.tokens, row.charged.images) for row in rows]


@pytest.fixture
async def auth(migrated: str) -> AsyncIterator[Auth]:
    """The books, without a replica."""
    postgres = Postgres(migrated, size=2, wait_s=20)
    await postgres.open()
    yield Auth(migrated, postgres, Accounts(postgres), Keys(postgres), 0, 0, AsyncExitStack())
    await postgres.close()


@pytest.mark.parametrize("at_once", [1, len(_ROWS)])
async def test_usage_is_what_the_ledger_charged(auth: Auth, at_once: int) -> None:
    """By day, model and operation, however many rows a statement writes; a request that was charged twice over is one,
    a released one is none."""
    account = f"acc_used_{at_once}"
    with psycopg.connect(auth.url) as link:
        for start in range(0, len(_ROWS), at_once):
            book(link, account, _ROWS[start : start + at_once])
    usage = Usage(auth.postgres)
    assert told(await usage.grouped(account, DAY, NEXT, limit=10)) == _USED
    assert told(await usage.grouped(account, NEXT, NEXT, limit=10)) == _USED[:1]
    assert await usage.grouped("acc_other", DAY, NEXT, limit=10) == []


async def test_usage_comes_in_pages(auth: Auth) -> None:
    """Row by row behind the last one, nothing twice and nothing left out."""
    with psycopg.connect(auth.url) as link:
        book(link, "acc_paged", _ROWS)
    rows = await paged(auth, "acc_paged", 1)
    assert [(row.day, row.model, row.requests, row.charged_tokens, row.charged_images) for row in rows] == [
        (str(day), *more) for day, *more in _USED
    ]


_TWO_MONTHS: list[tuple[str, str, int, int, str, date]] = [*_ROWS, ("settle", "old", 100, 2, "x", date(2026, 10, 31))]


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("group_by", "wanted"),
    [
        (["month"], [("2026-11", "", "", 6, 62, 1), ("2026-10", "", "", 1, 100, 2)]),
        (
            ["day"],
            [("", "2026-11-21", "", 1, 5, 0), ("", "2026-11-20", "", 5, 57, 1), ("", "2026-10-31", "", 1, 100, 2)],
        ),
        (["model"], [("", "", "x", 6, 155, 3), ("", "", "y", 1, 7, 0)]),
        (
            ["month,model"],
            [("2026-11", "", "x", 5, 55, 1), ("2026-11", "", "y", 1, 7, 0), ("2026-10", "", "x", 1, 100, 2)],
        ),
        (
            ["model", "month", "month"],
            [("2026-11", "", "x", 5, 55, 1), ("2026-11", "", "y", 1, 7, 0), ("2026-10", "", "x", 1, 100, 2)],
        ),
        (["provider", " key"], [("", "", "", 7, 162, 3)]),
    ],
)
async def test_usage_is_summed_up_as_asked(
    auth: Auth, group_by: list[str], wanted: list[tuple[Any, ...]], size: int
) -> None:
    """By any of its names, in pages of any size; the sums are of what was charged."""
    account = f"acc_{uuid4().hex}"
    with psycopg.connect(auth.url) as link:
        book(link, account, _TWO_MONTHS)
    rows = await paged(auth, account, size, group_by)
    assert [(r.month, r.day, r.model, r.requests, r.charged_tokens, r.charged_images) for r in rows] == wanted
    named = {name for text in group_by for name in text.replace(" ", "").split(",")}
    assert {row.key_id for row in rows} == ({"key_x"} if "key" in named else {""})
    assert {row.provider for row in rows} == ({"p"} if "provider" in named else {""})
    assert {row.operation for row in rows} == {0}


@pytest.mark.parametrize("names", [["week"], ["day,"], ["key_id"], ["Day"], ["day; drop table usage_days"]])
def test_what_cannot_be_grouped_by_is_refused(names: list[str]) -> None:
    """By its name, with those that can."""
    with pytest.raises(InvalidField, match=r"is none of month, day, key, provider, model, operation"):
        read_groups(names)


async def test_a_page_of_other_groups_is_refused(auth: Auth) -> None:
    """A token goes with what its page was grouped by."""
    with psycopg.connect(auth.url) as link:
        book(link, "acc_groups", _TWO_MONTHS)
    ask = account_service_pb2.GetUsageRequest(
        from_day="2026-01-01", to_day="2026-12-31", page_size=1, group_by=["month"]
    )
    _, ask.page_token = await page(Usage(auth.postgres), "acc_groups", ask)
    for groups in (["day"], ["month", "key"], []):
        ask.ClearField("group_by")
        ask.group_by.extend(groups)
        with pytest.raises(InvalidField, match="page_token is not of this list"):
            await page(Usage(auth.postgres), "acc_groups", ask)


async def test_two_who_book_for_one_account_do_not_wait_for_each_other(auth: Auth) -> None:
    """Sums that all add to would be a queue."""
    with psycopg.connect(auth.url) as one, psycopg.connect(auth.url) as other:
        book(one, "acc_busy", [("settle", "a", 30, 0, "x", DAY)])
        other.execute("set lock_timeout = '1s'")
        book(other, "acc_busy", [("settle", "b", 12, 0, "x", DAY)])
    assert told(await Usage(auth.postgres).grouped("acc_busy", DAY, DAY, limit=10)) == [(DAY, "x", 2, 42, 0)]


def test_sums_are_made_once_a_statement(migrated: str) -> None:
    """Also when they are stated anew, for another dimension: nothing adds row by row beside that."""
    with psycopg.connect(migrated) as link:
        link.execute("call state_dimensions()")
        triggers = link.execute(
            "select tgname, tgtype & 1 from pg_trigger"
            " where tgrelid = 'ledger'::regclass and tgname like 'ledger_usage%'"
        ).fetchall()
        link.rollback()
    # The other is for requests of unknown price, of which there are few.
    assert sorted(triggers) == [("ledger_usage", 0), ("ledger_usage_unpriced", 1)]


async def test_what_was_booked_before_is_counted(database: Database) -> None:
    """An older database's rows are summed up when it is migrated, once."""
    url = database.create("t_usage_before")
    migrations.upgrade(url, SCHEMA, "0012")
    with psycopg.connect(url) as link:
        book(link, "acc_before", _ROWS)
    migrate(url)
    postgres = Postgres(url, size=1, wait_s=20)
    await postgres.open()
    try:
        assert told(await Usage(postgres).grouped("acc_before", DAY, NEXT, limit=10)) == _USED
    finally:
        await postgres.close()
    with psycopg.connect(url) as link:
        link.execute("update usage_days set charged_tokens = charged_tokens + 1 where model = 'y'")
    faults = (await Checker(url).check(whole=True)).faults
    assert [(row["account"], row["tokens_off"]) for row in faults["a day's usage differs from the ledger"]] == [
        ("acc_before", 1)
    ]
