"""Nothing is lost and nothing is granted twice when a part goes away: the database, auth, the router."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from deploy.local.database import Database
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.migrations import migrate
from services.common.errors import MoaError, QuotaExhausted, Unavailable
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls, Admission, Reservation
from services.quota_client._lease_stores import CALL_S
from tests.auth.asking import TOKEN, Router, audited, reserve, settle, tokens, until
from tests.auth.conftest import Admit, Auth, Start, spawned, started

PATIENT_S = 60.0
"""For an answer of auth: a busy machine is no auth that is away."""


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[Database]:
    """A server of the test's own, which it may kill."""
    server = Database(tmp_path / "database")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def fragile(own_database: Database) -> AsyncIterator[Auth]:
    """A replica on the test's own database."""
    url = own_database.create("moa")
    migrate(url)
    auth = await started(url, lease_s=4.0, block_s=12.0, database_wait_s=1.0)
    yield auth
    await auth.stack.aclose()


async def test_a_warm_key_works_while_the_database_is_away(fragile: Auth, own_database: Database, admit: Admit) -> None:
    """Without the database a warm key goes on within what was borrowed, then gets a 503; everything is booked later."""
    account, key_id, key = await fragile.account(tokens=1_000_000)
    admission = await admit(fragile, call_s=CALL_S)
    charged = 0
    for _ in range(30):
        settle(await reserve(admission, key, 100), 60)
        charged += 60
        await asyncio.sleep(0.01)
    await until(lambda: fragile.spent(account) == (charged, 0))
    own_database.kill()
    down_at = time.monotonic()
    # How much was borrowed ahead depends on how fast the requests before came; half may lie in pieces.
    assert fragile.quota is not None
    least = min(50, fragile.quota.pools.free(key_id).tokens // 200)
    assert least > 5
    served = 0
    while served < least:  # in five seconds: longer than a lease lasts
        settle(await reserve(admission, key, 100), 60)
        served += 1
        await asyncio.sleep(5 / least)
    while True:
        try:
            settle(await reserve(admission, key, 100), 60)
        except Unavailable:
            break
        served += 1
        assert time.monotonic() - down_at < 40
        await asyncio.sleep(0.1)
    own_database.start()
    await until(lambda: fragile.spent(account) == (charged + 60 * served, 0))
    end = time.monotonic() + 40
    while True:
        try:
            settle(await reserve(admission, key, 100), 60)
            break
        except Unavailable:
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
    await admission.stop()
    await audited(fragile.url)


async def test_a_killed_routers_settlements_are_in_its_journal(auth: Auth, tmp_path: Path) -> None:
    """What waits for the next batch at kill -9 is booked by the next router in its folder, and all of it once."""
    account, _, key = await auth.account()
    journal = tmp_path / "journal"
    doomed = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.auth.doomed",
        auth.address,
        key,
        str(journal),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert await doomed.wait() == -signal.SIGKILL
    assert auth.spent(account) == (70, 0)
    link = channel(auth.address)
    for _ in range(2):
        admission = Admission(link, service_token=TOKEN, journal=journal)
        await admission.start()
        await until(lambda: auth.spent(account) == (5 * 70, 0))
        # Gone too is the dead one's journal, once auth knows of the sixth reservation, which was left open.
        await until(lambda: len(list(journal.iterdir())) == 1)
        await admission.stop()
        assert list(journal.iterdir()) == []
    await link.close()
    still = "select count(*) from open_reservations o join blocks b on b.id = o.block_id where b.account_id = %s"
    assert auth.query(still, account) == [(1,)]


async def test_an_orphan_is_charged_what_was_last_reported(start: Start) -> None:
    """A reservation whose holder vanished is charged as reported, listed, and corrected by a late settlement."""
    auth = await start(lease_s=2.0, block_s=4.0)
    account, _, key = await auth.account(tokens=1000)
    link = channel(auth.address)
    admission = Router(link, service_token=TOKEN, call_s=PATIENT_S)
    await admission.start()
    reservation = await reserve(admission, key, 600)
    reservation.report(usage=tokens(40), provider="local-text", model="m")
    reported = "select so_far from open_reservations where reservation_id = %s"
    await until(lambda: auth.query(reported, reservation.reservation_id) != [])
    first = auth.query(reported, reservation.reservation_id)
    reservation.report(usage=tokens(90), provider="local-text", model="m")
    await until(lambda: auth.query(reported, reservation.reservation_id) not in ([], first))
    admission.vanish()
    await until(lambda: auth.spent(account) == (90, 0))
    found = await audited(auth.url)
    orphans = [row for row in found.notes["orphans"] if row["account_id"] == account]
    assert [(row["reservation"], row["tokens"]) for row in orphans] == [(reservation.reservation_id, 90)]
    assert auth.taken(account)[0] < 600
    settle(reservation, 250)
    await until(lambda: auth.spent(account) == (250, 0))
    (orphan,) = (row for row in (await audited(auth.url)).notes["orphans"] if row["account_id"] == account)
    assert orphan["corrected_tokens"] == 160
    await admission.stop()
    await link.close()


async def test_a_late_settlement_never_exceeds_the_limit(start: Start) -> None:
    """When others took what an orphan had reserved, its late settlement is charged as far as there is room."""
    auth = await start(lease_s=1.0, block_s=2.0)
    account, _, key = await auth.account(tokens=1000)
    link = channel(auth.address)
    gone = Router(link, service_token=TOKEN, call_s=PATIENT_S)
    await gone.start()
    reservation = await reserve(gone, key, 900)
    gone.vanish()
    other = Admission(link, service_token=TOKEN, call_s=PATIENT_S)
    await other.start()
    end = time.monotonic() + 40
    while True:
        try:
            settle(await reserve(other, key, 950), 950)
            break
        except QuotaExhausted:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
    await until(lambda: auth.spent(account) == (950, 0))
    settle(reservation, 800)
    await until(lambda: auth.spent(account)[0] > 950)
    await other.stop()
    await gone.stop()
    await link.close()
    charged = auth.spent(account)[0] - 950
    assert 0 < charged <= 50
    found = await audited(auth.url)
    uncovered = [row for row in found.notes["uncovered"] if row["account_id"] == account]
    assert [(row["kind"], row["uncovered_tokens"]) for row in uncovered] == [("late", 800 - charged)]


A = TypeVar("A", bound=Admission)


@asynccontextmanager
async def router_and_backend(
    auth: Auth, kind: type[A], *, after_s: float = 0.5
) -> AsyncIterator[tuple[A, AbandonedCalls]]:
    """Start a router, and a backend that books what it left after so long; both end with the block."""
    async with channel(auth.address) as link:
        router = kind(link, service_token=TOKEN, call_s=PATIENT_S)
        await router.start()
        backend = AbandonedCalls(link, service_token=TOKEN, after_s=after_s)
        await backend.start()
        yield router, backend
        await backend.stop()
        await router.stop()


def left(
    backend: AbandonedCalls,
    reservation_id: str,
    usage: usage_pb2.Usage,
    operation: quota_pb2.Operation.ValueType = quota_pb2.OPERATION_TEXT,
) -> None:
    """Tell a backend that a call was left, and what it had delivered."""
    backend.left(reservation_id, usage=usage, operation=operation, provider="local-text", model="m", request_id="r")


async def test_a_backend_settles_for_a_router_that_vanished(start: Start) -> None:
    """By the reservation's id alone the backend books what it delivered; a router that did settle is not overruled."""
    auth = await start()
    account, _, key = await auth.account()
    async with router_and_backend(auth, Admission) as (router, backend):
        lost, kept = await reserve(router, key, 300), await reserve(router, key, 300)
        for reservation in (lost, kept):
            left(backend, reservation.reservation_id, tokens(200))
        left(backend, "", tokens(1))
        settle(kept, 150)
        await until(lambda: auth.spent(account) == (350, 0))
    assert auth.spent(account) == (350, 0)
    await audited(auth.url)


async def test_images_are_booked_by_a_backend_as_they_were_delivered(start: Start) -> None:
    """A router dies with one of three images handed over: one is charged, and two are free again, without an orphan."""
    auth = await start(lease_s=2.0, block_s=4.0)
    account, _, key = await auth.account(images=3)
    async with router_and_backend(auth, Router) as (router, backend):
        reservation = await reserve(router, key, 0, images=3, operation=quota_pb2.OPERATION_IMAGE)
        router.vanish()
        left(backend, reservation.reservation_id, usage_pb2.Usage(images=1, exact=True), quota_pb2.OPERATION_IMAGE)
        await until(lambda: auth.spent(account) == (0, 1))
        await until(lambda: auth.taken(account) == (0, 1))
    found = await audited(auth.url)
    assert [row for row in found.notes["orphans"] if row["account_id"] == account] == []
    assert auth.spent(account) == (0, 1)


async def test_when_backend_and_router_die_together_the_last_report_is_charged(start: Start) -> None:
    """A backend that dies before it told what it had delivered takes that with it: the charge is what the router
    reported last, and the audit lists it."""
    auth = await start(lease_s=2.0, block_s=4.0)
    account, _, key = await auth.account()
    async with router_and_backend(auth, Router, after_s=3600) as (router, backend):
        reservation = await reserve(router, key, 300)
        reservation.report(usage=tokens(80), provider="local-text", model="m")
        told = "select 1 from open_reservations where reservation_id = %s"
        await until(lambda: bool(auth.query(told, reservation.reservation_id)))
        router.vanish()
        left(backend, reservation.reservation_id, tokens(120))
        # The backend tells nothing within this test, as one that is gone: what it had to tell is in its memory alone.
        await until(lambda: auth.spent(account) == (80, 0))
        found = await audited(auth.url)
        assert [
            (row["reservation"], row["tokens"]) for row in found.notes["orphans"] if row["account_id"] == account
        ] == [(reservation.reservation_id, 80)]


async def test_a_backend_does_not_charge_what_a_living_router_left(start: Start) -> None:
    """A call that the router left before it read anything of it is free, whatever the backend had sent by then."""
    auth = await start()
    account, _, key = await auth.account()
    async with router_and_backend(auth, Admission) as (router, backend):
        void = await reserve(router, key, 300)
        assert isinstance(void, Reservation)
        void.void()
        left(backend, void.reservation_id, tokens(200))
        await until(lambda: bool(auth.query("select 1 from ledger where reference = %s", void.reservation_id)))
    assert auth.spent(account) == (0, 0)
    await audited(auth.url)


async def test_what_a_killed_replica_had_borrowed_comes_back(start: Start, admit: Admit) -> None:
    """A replica that vanishes with its memory costs the account its block for the block's time, and no longer."""
    other = await start(lease_s=1.0, block_s=2.0)
    account, _, key = await other.account(tokens=10_000)
    doomed, address = await spawned(other.url, lease_s=1.0, block_s=2.0)
    link = channel(address)
    router = Admission(link, service_token=TOKEN, call_s=PATIENT_S)
    await router.start()
    settle(await reserve(router, key, 1000), 1000)
    await until(lambda: other.spent(account) == (1000, 0))
    assert other.taken(account)[0] > 1000
    doomed.kill()
    await doomed.wait()
    # Half a second longer than its time, for settlements that come late.
    longer = "select 1 from blocks where account_id = %s and closed_at is null and expires_at > now() + interval '3 s'"
    assert other.query(longer, account) == []
    await router.stop()
    await link.close()
    router = await admit(other, journal=None)
    end = time.monotonic() + 60
    while True:
        try:
            reservation = await reserve(router, key, 9000)
            break
        except QuotaExhausted:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
    settle(reservation, 9000)
    await until(lambda: other.spent(account) == (10_000, 0))
    await audited(other.url)


async def test_work_that_outlives_its_lease_is_still_booked(start: Start, admit: Admit) -> None:
    """A stream that runs longer than a lease keeps its reservation, because the router renews it."""
    auth = await start(lease_s=3.0, block_s=6.0)
    account, _, key = await auth.account(tokens=1000)
    router = await admit(auth)
    reservation = await reserve(router, key, 1000)
    await asyncio.sleep(7)
    other = await admit(auth, journal=None)
    with pytest.raises(MoaError):
        await reserve(other, key, 1)
    settle(reservation, 1000)
    await until(lambda: auth.spent(account) == (1000, 0))
    assert auth.query("select kind from ledger where reference = %s", reservation.reservation_id) == [("settle",)]
