"""Reports of spending are the ledger, grouped: at every committed snapshot, for everybody, an account and a team."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.api import httpbody_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.database import Database
from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from services.auth import spend_pages
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import Checker
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.spend import Spend
from services.auth.domain.spend import Report, read
from services.auth.migrations import SCHEMA, migrate
from services.common import migrations
from services.common.errors import InvalidField
from services.common.rpc import rest
from services.quota_client.labels import labelled
from tests.auth.asking import reserve, settle, until
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth
from tests.auth.made_teams import put, team
from tests.laws import tries

DAY, NEXT, LATER = date(2026, 11, 29), date(2026, 11, 30), date(2026, 12, 1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the ledger."""

    nano_usd: int
    kind: str = "settle"
    day: date = DAY
    account: str = "acc_a"
    key: str = "key_a"
    team: str | None = None
    provider: str = "p"
    model: str = "m"
    dialect: str | None = "openai"
    tags: tuple[str, ...] | None = None


def book(link: psycopg.Connection[Any], rows: Iterable[Row]) -> None:
    """Write rows in one transaction, each with a token for every nano-dollar."""
    for row in rows:
        link.execute(
            "insert into ledger (kind, account_id, key_id, team_id, day, block_id, reference, tokens, images, nano_usd,"
            " operation, provider, model, prompt_tokens, completion_tokens, dialect, tags)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, 0, %s, 1, %s, %s, %s, 0, %s, %s)",
            (
                row.kind,
                row.account,
                row.key,
                row.team,
                row.day,
                uuid4(),
                f"{uuid4()}.1.999.9",
                row.nano_usd,
                row.nano_usd,
                row.provider,
                row.model,
                max(0, row.nano_usd),
                row.dialect,
                list(row.tags) if row.tags else None,
            ),
        )
    link.commit()


@pytest.fixture
async def books(migrated: str) -> AsyncIterator[Auth]:
    """The books, without a replica."""
    postgres = Postgres(migrated, size=4, wait_s=20)
    await postgres.open()
    with psycopg.connect(migrated) as link:
        link.execute("truncate spend")
    yield Auth(migrated, postgres, Accounts(postgres), Keys(postgres), 0, 0, AsyncExitStack())
    await postgres.close()


async def told(auth: Auth, report: Report) -> dict[tuple[str, str], int]:
    """Return the nano-dollars of a report by time and group."""
    found = await Spend(auth.postgres).read(report, limit=2000)
    return {(str(row.starts), row.value): row.spent.nano_usd for row in found.rows}


ROWS = [
    Row(nano_usd=5, tags=("x", "y")),
    Row(nano_usd=7, day=NEXT, key="key_b", model="n", tags=("x",)),
    Row(nano_usd=11, account="acc_b", key="key_c", team="team_t", provider="q", dialect="google"),
    Row(nano_usd=13, account="acc_c", key="key_d", team="team_t", day=LATER, dialect=None, tags=("user:u", "y")),
    Row(nano_usd=17, kind="orphan"),
    Row(nano_usd=-6, kind="late"),
    Row(nano_usd=0, kind="return", provider=""),
]


@pytest.mark.parametrize(
    ("by", "whose", "wanted"),
    [
        (
            "month,team",
            {},
            {("2026-11-01", ""): 23, ("2026-11-01", "team_t"): 11, ("2026-12-01", "team_t"): 13},
        ),
        ("day,account", {"team_id": "team_t"}, {("2026-11-29", "acc_b"): 11, ("2026-12-01", "acc_c"): 13}),
        (
            "day,key",
            {},
            {
                ("2026-11-29", "key_a"): 16,
                ("2026-11-30", "key_b"): 7,
                ("2026-11-29", "key_c"): 11,
                ("2026-12-01", "key_d"): 13,
            },
        ),
        ("month,model", {"account_id": "acc_a"}, {("2026-11-01", "p/m"): 16, ("2026-11-01", "p/n"): 7}),
        ("month,provider", {}, {("2026-11-01", "p"): 23, ("2026-11-01", "q"): 11, ("2026-12-01", "p"): 13}),
        ("day,dialect", {"team_id": "team_t"}, {("2026-11-29", "google"): 11, ("2026-12-01", ""): 13}),
        ("month,tag", {}, {("2026-11-01", "x"): 12, ("2026-11-01", "y"): 5, ("2026-12-01", "y"): 13}),
        ("month,tag", {"account_id": "acc_c"}, {("2026-12-01", "user:u"): 13, ("2026-12-01", "y"): 13}),
    ],
)
async def test_spending_is_grouped(
    books: Auth, by: str, whose: dict[str, str], wanted: dict[tuple[str, str], int]
) -> None:
    """By day or month, and by each group: of everybody, of one account, of one team; users by their account alone."""
    with psycopg.connect(books.url) as link:
        book(link, ROWS)
    assert await told(books, read([by], "2026-11", "2026-12", **whose)) == wanted


async def test_pages_hold_each_row_once(books: Auth) -> None:
    """Behind the last row of the page before, with the total of all pages on each; a month is whole."""
    with psycopg.connect(books.url) as link:
        book(link, ROWS)
    request = admin_pb.ReportSpendRequest(page_size=2)
    seen = []
    while True:
        report = read(["day", "key"], "2026-11-01", "2026-12-31")
        page = await spend_pages.page(Spend(books.postgres), report, request, admin_pb.ReportSpendResponse)
        seen += [(row.time, row.group, row.usd) for row in page.rows]
        assert (page.total.usd, page.total.requests) == ("0.000000047", 6)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert seen == [
        ("2026-12-01", "key_d", "0.000000013"),
        ("2026-11-30", "key_b", "0.000000007"),
        ("2026-11-29", "key_a", "0.000000016"),
        ("2026-11-29", "key_c", "0.000000011"),
    ]
    months = read(["month"], "2026-11-15", "2026-12-02")
    assert (months.first, months.last) == (date(2026, 11, 1), date(2026, 12, 31))
    request = admin_pb.ReportSpendRequest(page_token="?")
    with pytest.raises(InvalidField):
        await spend_pages.page(Spend(books.postgres), months, request, admin_pb.ReportSpendResponse)


async def test_a_file_holds_all_rows(books: Auth) -> None:
    """As RFC 4180 has them, exact to the nano-dollar; what a spreadsheet would calculate is text."""
    with psycopg.connect(books.url) as link:
        book(link, [Row(nano_usd=1_500_000_001, tags=('=HYPERLINK("x")', "a,b"))])
    body = await spend_pages.file(Spend(books.postgres), read(["day,tag"], "2026-11", "2026-11"))
    assert body.content_type == "text/csv; charset=utf-8"
    header, *rows = csv.reader(io.StringIO(body.data.decode()))
    assert header[:4] == ["day", "tag", "name", "usd"]
    assert sorted(row[:4] for row in rows) == [
        ["2026-11-29", '\'=HYPERLINK("x")', "", "1.500000001"],
        ["2026-11-29", "a,b", "", "1.500000001"],
    ]


@pytest.mark.parametrize(
    ("by", "from_day", "to_day", "whose", "param"),
    [
        (["week"], "", "", {}, "by"),
        (["day,month"], "", "", {}, "by"),
        (["key", "model"], "", "", {}, "by"),
        (["team"], "", "", {"account_id": "acc_a"}, "by"),
        (["account"], "", "", {"account_id": "acc_a"}, "by"),
        (["team"], "", "", {"team_id": "team_t"}, "by"),
        ([], "2026-13", "", {}, "from_day"),
        ([], "2026-11-02", "2026-11-01", {}, "to_day"),
        ([], "2025-01-01", "2026-11-01", {}, "to_day"),
        ([], "", "", {"account_id": "acc_a", "team_id": "team_t"}, "team_id"),
    ],
)
def test_what_cannot_be_reported_is_named(
    by: list[str], from_day: str, to_day: str, whose: dict[str, str], param: str
) -> None:
    """An unknown group, two of them, a group that the scope has none of, no day, too long a time."""
    with pytest.raises(InvalidField) as refused:
        read(by, from_day, to_day, **whose)
    assert refused.value.param == param


_SNAPSHOT = """
    select (select coalesce(sum(nano_usd), 0) from ledger where kind in ('settle', 'orphan', 'late')),
           (select array_agg(distinct n) from (
               select coalesce(sum(charged_nano_usd), 0) as n
               from (
                   values ('team', 'day'), ('account', 'day'), ('account', 'month'), ('key', 'day'), ('key', 'month'),
                          ('model', 'day'), ('dialect', 'day')
               ) g (grouping, period)
               left join spend s on s.scope = '' and s.grouping = g.grouping and s.period = g.period
               group by g.grouping, g.period
           ) sums)
"""
ROW = st.builds(
    lambda moved, **row: Row(kind=moved[0], nano_usd=moved[1], **row),
    st.one_of(
        st.tuples(st.sampled_from(["settle", "orphan"]), st.integers(0, 50)),
        st.tuples(st.just("late"), st.integers(-5, 50)),
    ),
    day=st.sampled_from([DAY, NEXT, LATER]),
    account=st.sampled_from(["acc_a", "acc_b"]),
    key=st.sampled_from(["key_a", "key_b"]),
    team=st.sampled_from([None, "team_t"]),
    model=st.sampled_from(["m", "n"]),
    dialect=st.sampled_from([None, "openai"]),
    tags=st.sampled_from([None, ("x",), ("x", "user:u")]),
)


@given(
    batches=st.lists(st.lists(st.lists(ROW, min_size=1, max_size=4), min_size=1, max_size=4), min_size=2, max_size=4)
)
@settings(max_examples=tries(5), deadline=None)
def test_every_committed_snapshot_agrees(migrated: str, batches: list[list[list[Row]]]) -> None:
    """Writers book at once, transaction by transaction, and whoever reads between any two commits finds that each
    grouping, by day and by month, sums up to the ledger; writers do not wait for each other."""

    def writes(transactions: list[list[Row]]) -> None:
        with psycopg.connect(migrated, options="-c lock_timeout=20000 -c deadlock_timeout=100") as link:
            for rows in transactions:
                book(link, rows)

    def reads(link: psycopg.Connection[Any]) -> None:
        (row,) = link.execute(_SNAPSHOT).fetchall()
        link.rollback()
        assert row[1] == [row[0]]

    async def all_at_once() -> None:
        with psycopg.connect(migrated) as link:
            link.execute("delete from spend")
            link.execute("alter table ledger disable trigger ledger_carried")
            link.execute("delete from ledger")
            link.execute("alter table ledger enable trigger ledger_carried")
            link.commit()
            writers = [asyncio.create_task(asyncio.to_thread(writes, one)) for one in batches]
            while not all(writer.done() for writer in writers):
                await asyncio.to_thread(reads, link)
            await asyncio.gather(*writers)
            reads(link)

    asyncio.run(all_at_once())


def test_whoever_books_does_not_wait(migrated: str) -> None:
    """Two transactions that add to the same sums go on beside each other, and both count."""
    with psycopg.connect(migrated) as one, psycopg.connect(migrated, options="-c lock_timeout=2000") as other:
        one.execute("delete from spend")
        one.commit()
        insert = (
            "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images, nano_usd,"
            " provider, model) values ('settle', 'acc_a', 'key_a', '2026-11-29', gen_random_uuid(),"
            " gen_random_uuid()::text, 1, 0, 5, 'p', 'm')"
        )
        one.execute(insert)
        other.execute(insert)
        other.commit()
        one.commit()
        rows = one.execute("select sum(charged_nano_usd) from spend where scope = '' and grouping = 'key'")
        assert rows.fetchone() == (20,)


async def test_tags_of_an_account_are_bounded(books: Auth) -> None:
    """Beyond a thousand in a month they are counted together; those that are known go on by themselves."""
    with psycopg.connect(books.url) as link:
        link.execute(
            "insert into spend (scope, grouping, period, starts, value, shard, requests, unpriced_requests,"
            " prompt_tokens, completion_tokens)"
            " select 'acc_a', 'tag', 'month', '2026-11-01', 'made-up-' || n, 0, 1, 0, 0, 0"
            " from generate_series(1, 999) n"
        )
        book(link, [Row(nano_usd=1, tags=("the thousandth",))])
        book(link, [Row(nano_usd=2, tags=("one more",)), Row(nano_usd=4, tags=("the thousandth",))])
        book(link, [Row(nano_usd=8, tags=("one more",), day=LATER)])
    spent = await told(books, read(["month,tag"], "2026-11", "2026-12", account_id="acc_a"))
    assert {place: nano_usd for place, nano_usd in spent.items() if nano_usd} == {
        ("2026-11-01", "the thousandth"): 5,
        ("2026-11-01", "(others)"): 2,
        ("2026-12-01", "one more"): 8,
    }


async def test_a_deleted_accounts_users_are_spent_together(books: Auth) -> None:
    """None of them is named any more, and the sums are what they were."""
    account, *_ = await books.account()
    with psycopg.connect(books.url) as link:
        book(link, [Row(nano_usd=n, account=account, tags=(f"user:{n % 2}", "x")) for n in (1, 2, 4)])
    await books.accounts.delete(account, actor="console")
    report = read(["month,tag"], "2026-11", "2026-11", account_id=account)
    assert await told(books, report) == {("2026-11-01", "x"): 7, ("2026-11-01", "(deleted)"): 7}


def test_what_was_booked_before_is_reported(database: Database) -> None:
    """A database of the release before has its spending by account, key and model from its first day, and audits."""
    url = database.create("t_spend_before")
    migrations.upgrade(url, SCHEMA, "0028")
    with psycopg.connect(url) as link:
        book(link, ROWS)
    migrate(url)
    with psycopg.connect(url) as link:
        rows = link.execute(
            "select grouping, value, sum(charged_nano_usd) from spend where scope = '' and period = 'day'"
            " group by 1, 2 order by 1, 2"
        ).fetchall()
    assert rows == [
        ("account", "acc_a", 23),
        ("account", "acc_b", 11),
        ("account", "acc_c", 13),
        ("dialect", "", 47),
        ("key", "key_a", 16),
        ("key", "key_b", 7),
        ("key", "key_c", 11),
        ("key", "key_d", 13),
        ("model", "p/m", 29),
        ("model", "p/n", 7),
        ("model", "q/m", 11),
        ("team", "", 47),
    ]
    found = asyncio.run(Checker(url).check(whole=True))
    assert not [name for name in found.faults if "spending" in name]


def test_months_of_what_was_booked_before_are_reported(database: Database) -> None:
    """By team, model and dialect there were sums by day alone: those of months are made of them, and go on."""
    url = database.create("t_spend_by_month")
    (by_month,) = (number for number, path in SCHEMA.migrations().items() if "spend_by_month" in path.name)
    migrations.upgrade(url, SCHEMA, f"{int(by_month) - 1:04}")
    summed = (
        "select grouping, sum(charged_nano_usd)::int from spend where scope = '' and period = 'month'"
        " and grouping <> 'tag' group by 1 order by 1"
    )
    with psycopg.connect(url) as link:
        book(link, ROWS)
        assert link.execute(summed).fetchall() == [("account", 47), ("key", 47)]
        link.commit()
        migrate(url)
        assert link.execute(summed).fetchall() == [
            (name, 47) for name in ("account", "dialect", "key", "model", "team")
        ]
        book(link, ROWS)
        assert link.execute(summed).fetchall() == [
            (name, 94) for name in ("account", "dialect", "key", "model", "team")
        ]
        link.commit()
    found = asyncio.run(Checker(url).check(whole=True))
    assert not [name for name in found.faults if "spending" in name]


async def test_an_account_and_an_administrator_see_what_was_spent(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """From a settlement to the report of its account, of everybody, and to the file that a browser is given."""
    account, key_id, key = await auth.account()
    admission = await admit(auth)
    reservation = await reserve(admission, key, 100)
    reservation.labels = labelled("openai", ["batch"])
    settle(reservation, 40)
    await until(lambda: auth.spent(account) == (40, 0))
    day = str((await auth.quota_day(account))[0])
    asked = pb.GetSpendRequest(by=["day", "key"], from_day=day, to_day=day)
    mine = await client.account.GetSpend(asked, metadata=client.sent(key))
    assert [(row.group, row.tokens, row.requests) for row in mine.rows] == [(key_id, 40, 1)]
    assert (mine.total.tokens, mine.total.requests) == (40, 1)
    every = admin_pb.ReportSpendRequest(by=["tag"], account_id=account, from_day=day, to_day=day)
    found = await client.admin.ReportSpend(every, metadata=client.sent(root))
    assert [(row.group, row.tokens) for row in found.rows] == [("batch", 40)]
    sent = (*client.sent(key), (rest.ORIGINAL_PATH, f"/account/spend.csv?by=dialect&from_day={day}&to_day={day}"))
    body: httpbody_pb2.HttpBody = await client.account.DownloadSpend(pb.DownloadSpendRequest(), metadata=sent)
    assert b",openai,," in body.data
    wrong = (*client.sent(key), (rest.ORIGINAL_PATH, "/account/spend.csv?bye=dialect"))
    refused = client.account.DownloadSpend(pb.DownloadSpendRequest(), metadata=wrong)
    assert await code_of(refused) == grpc.StatusCode.INVALID_ARGUMENT
    of_team = client.account.GetSpend(pb.GetSpendRequest(of_team=True), metadata=client.sent(key))
    assert await code_of(of_team) == grpc.StatusCode.PERMISSION_DENIED
    team_id = await team(client, root)
    await put(client, root, team_id, account, account_pb2.TEAM_ROLE_OWNER)
    of_team = client.account.GetSpend(pb.GetSpendRequest(of_team=True), metadata=client.sent(key))
    with pytest.raises(grpc.aio.AioRpcError, match="this key lacks the scope `account`"):
        await of_team
