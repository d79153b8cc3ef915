"""Requests whose price is not known: reports do not say that they cost nothing."""

from __future__ import annotations

from datetime import date
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import psycopg
import pytest

from deploy.local.database import Database
from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.checker import Checker
from services.auth.domain.ledger import Booking, Further
from services.auth.migrations import SCHEMA, migrate
from services.catalogue import Catalogue, Model, Provider
from services.common import byok, migrations
from services.common.rpc import call as calls
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls
from services.quota_client.amounts import Amount, charge
from tests.auth.asking import TOKEN, reserve, tokens, until
from tests.auth.client import Client
from tests.auth.conftest import Admit, Auth
from tests.killing import killed_migration

DAY = date(2026, 11, 20)
_ROW = (
    "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images, nano_usd, operation,"
    " provider, model, prompt_tokens, completion_tokens{})"
    " values (%s, %s, 'key_x', %s, %s, %s, 0, 0, %s, 1, 'p', %s, 5, 0{})"
)


def book(link: psycopg.Connection[Any], account: str, *rows: tuple[str, str, str, bool, int]) -> None:
    """Write rows of the ledger: kind, reservation, model, whether its price is unknown, nano-dollars."""
    for kind, reference, model, unknown, nano_usd in rows:
        given = (kind, account, DAY, uuid4(), f"{account}-{reference}.1.9.0", nano_usd, model, unknown)
        link.execute(_ROW.format(", price_unknown", ", %s"), given)


def costs(rows: list[account_pb2.UsageRow]) -> dict[str, tuple[int, int | None, int]]:
    """Return requests, dollars where any are known, and requests of unknown prices, by model."""
    return {
        row.model: (
            row.requests,
            row.charged_nano_usd if row.HasField("charged_nano_usd") else None,
            row.unpriced_requests,
        )
        for row in rows
    }


def test_a_settlement_says_that_a_price_is_not_known() -> None:
    """It charges no dollars then; what came to nothing cost nothing, and what has no price costs none."""
    reserved = Amount(tokens=100, requests=1)
    for usage, nano_usd, unknown in (
        (tokens(10), None, True),
        (usage_pb2.Usage(images=1), None, True),
        (usage_pb2.Usage(), None, False),
        (tokens(10), 0, False),
    ):
        settlement = quota_pb2.Settlement(usage=usage, provider="p")
        charged = charge(settlement, reserved, nano_usd)
        assert (settlement.price_unknown, charged.nano_usd, settlement.charged.nano_usd) == (unknown, 0, 0)


def test_a_further_reservation_is_no_other_request_of_unknown_price() -> None:
    """The first alone says it."""
    name = f"{'A' * 48}.2.50.0"
    told = quota_pb2.Settlement(charged=quota_pb2.Amount(tokens=120), further=[name], price_unknown=True)
    further = Further(name, "A" * 48, uuid4(), Amount(tokens=50))
    (other,) = Booking("first", "A" * 48, uuid4(), Amount(tokens=100), told, (further,)).others()
    assert (other.settlement.price_unknown, other.charged) == (False, Amount(tokens=20))


async def test_a_report_tells_what_is_known_and_how_many_requests_are_not(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """No dollars where no price is known; where some are, their sum, and how many are not in it; in administrators'
    reports, in sums by month and in the ledger's rows too."""
    account, key_id, key = await auth.account(tokens=10_000)
    admission = await admit(auth)
    for model, cost in (("new", None), ("new", None), ("mixed", 700), ("mixed", None), ("free", 0)):
        reservation = await reserve(
            admission, key, 100, need=Amount(tokens=100, nano_usd=1000), cost=lambda *_, cost=cost: cost
        )
        reservation.settle(usage=tokens(10), provider="p", model=model)
    settled = "select count(*) from ledger where kind = 'settle' and account_id = %s"
    await until(lambda: auth.query(settled, account) == [(5,)])
    told = await client.account.GetUsage(pb.GetUsageRequest(group_by=["model"]), metadata=client.sent(key))
    assert costs(list(told.rows)) == {"new": (2, None, 2), "mixed": (2, 700, 1), "free": (1, 0, 0)}
    told = await client.account.GetUsage(pb.GetUsageRequest(group_by=["month"]), metadata=client.sent(key))
    assert costs(list(told.rows)) == {"": (5, 700, 3)}
    rows = auth.query("select model, price_unknown from ledger where kind = 'settle' and key_id = %s", key_id)
    assert sorted(rows) == [("free", False), ("mixed", False), ("mixed", True), ("new", True), ("new", True)]
    # Other tests write rows without their sums.
    faults = (await Checker(auth.url).check(most=10_000, whole=True)).faults
    assert [row for found in faults.values() for row in found if {account, key_id}.intersection(row.values())] == []


async def test_a_backend_says_so_of_a_call_that_was_left_but_not_where_its_caller_pays_the_provider(
    auth: Auth, admit: Admit
) -> None:
    """What is booked for a caller's own key costs nothing here, whoever knows the price."""
    account, _, key = await auth.account()
    admission = await admit(auth)
    provider = Provider(id="one", adapter="x", makes="text", base_url="x")
    model = Catalogue([provider], [Model(id="*", provider="one")], frozenset({"one"})).find("new")
    async with channel(auth.address) as link:
        backend = AbandonedCalls(link, service_token=TOKEN, after_s=0)
        await backend.start()
        for own in ("", "AIza1"):
            told = {calls.RESERVATION_KEY: (await reserve(admission, key, 100)).reservation_id, byok.METADATA_KEY: own}
            context = Mock(invocation_metadata=Mock(return_value=tuple(told.items())))
            backend.report(context, usage=tokens(10), operation=quota_pb2.OPERATION_TEXT, model=model)
        await backend.stop()
    rows = "select price_unknown from ledger where kind = 'settle' and account_id = %s"
    await until(lambda: sorted(auth.query(rows, account)) == [(False,), (True,)])


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([("orphan", "a", "x", True, 0)], {"x": (1, None, 1)}),
        ([("orphan", "a", "x", True, 0), ("late", "a", "x", True, 0)], {"x": (1, None, 1)}),
        ([("orphan", "a", "x", True, 0), ("late", "a", "x", False, 9)], {"x": (1, 9, 0)}),
        ([("late", "a", "x", True, 0)], {"x": (1, None, 1)}),
        ([("orphan", "a", "x", False, 9), ("late", "a", "y", True, -9)], {"x": (1, 9, 0), "y": (0, None, 1)}),
    ],
)
async def test_one_that_was_charged_twice_over_is_one(
    auth: Auth, client: Client, rows: list[tuple[str, str, str, bool, int]], wanted: dict[str, Any]
) -> None:
    """Of a request that was charged as an orphan and settled after all the later row tells whether a price is known."""
    account, _, key = await auth.account()
    with psycopg.connect(auth.url) as link:
        book(link, account, *rows)
    ask = pb.GetUsageRequest(from_day=str(DAY), to_day=str(DAY))
    told = await client.account.GetUsage(ask, metadata=client.sent(key))
    assert costs(list(told.rows)) == wanted


async def test_the_release_before_books_beside_this_one_and_a_kill_amid_the_change_leaves_it(
    database: Database,
) -> None:
    """What it booked, and books, has no count; whoever starts next makes the change that was killed."""
    url = database.create("unpriced_before")
    migrations.upgrade(url, SCHEMA, "0021")

    def book_before() -> None:
        with psycopg.connect(url) as link:
            given = ("settle", "acc", DAY, uuid4(), f"{uuid4()}.1.9.0", 40, "m")
            link.execute(_ROW.format("", ""), given)

    book_before()
    killed_migration(url, "usage_days")
    with psycopg.connect(url) as link:
        assert link.execute("select version_num from alembic_version").fetchall() == [("0021",)]
        columns = "select 1 from information_schema.columns where column_name in ('price_unknown', 'unpriced_requests')"
        assert link.execute(columns).fetchall() == []
    book_before()
    migrate(url)
    book_before()
    with psycopg.connect(url) as link:
        book(link, "acc", ("settle", "new", "m", True, 0))
        sums = "select sum(requests)::int, sum(unpriced_requests)::int, sum(charged_nano_usd)::int from usage_days"
        assert link.execute(sums).fetchall() == [(4, 1, 120)]
    assert "a day's usage differs from the ledger" not in (await Checker(url).check(whole=True)).faults
