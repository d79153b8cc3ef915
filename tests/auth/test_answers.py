"""Requests with an idempotency key, over the real PostgreSQL: claimed by one, answered alike, and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from deploy.local.database import Database
from moa.idempotency.v1 import idempotency_service_pb2 as pb
from services.auth.adapters.answers import Answers, Asked
from services.auth.adapters.postgres import Postgres
from services.auth.migrations import SCHEMA
from services.common import migrations
from services.common.errors import NotFound, Unavailable
from tests.auth.asking import PEPPER

Replicas = Callable[..., Awaitable[Answers]]
ANSWER = b"an answer that nobody else may read"


@pytest.fixture
async def replica(migrated: str) -> AsyncIterator[Replicas]:
    """Make replicas, each with connections of its own."""
    opened: list[Postgres] = []

    async def made(*, pepper: bytes = PEPPER, lease_s: float = 30, **settings: int) -> Answers:
        postgres = Postgres(migrated, size=4, wait_s=20)
        await postgres.open()
        opened.append(postgres)
        return Answers(postgres, pepper=pepper, lease_s=lease_s, **settings)

    yield made
    for postgres in opened:
        await postgres.close()


@pytest.fixture
async def answers(replica: Replicas) -> Answers:
    return await replica()


def asked(account: str = "", **more: Any) -> Asked:
    """Return a request of an account of its own."""
    given: dict[str, Any] = {"key_id": "key", "operation": "/x/Y", "idempotency_key": "once", "fingerprint": b"same"}
    given |= {"request_id": "r", "claim_id": uuid4()}
    return Asked(account_id=account or uuid4().hex, **{**given, **more})


def again(request: Asked, **more: Any) -> Asked:
    """Return a request as it is asked again."""
    return replace(request, **{"claim_id": uuid4(), **more})


def outcome(found: pb.ClaimResponse) -> str:
    return found.WhichOneof("outcome") or ""


def claim_of(found: pb.ClaimResponse) -> UUID:
    assert outcome(found) == "begun"
    return UUID(found.begun.claim_id)


def change(url: str, what: str, account: str) -> None:
    """Change an owner's rows: time passes, or a claim is lost."""
    with psycopg.connect(url) as link:
        link.execute(f"update idempotent_requests set {what} where owner = %s", (account,))


async def test_of_many_that_claim_at_once_one_begins(replica: Replicas) -> None:
    """Forty claims of one key by two replicas: one begins, and the others are told that it runs, and whose it is."""
    replicas = [await replica(), await replica()]
    same = asked()
    found = await asyncio.gather(*(replicas[n % 2].claim(again(same, request_id=f"r{n}")) for n in range(40)))
    outcomes = [outcome(each) for each in found]
    assert sorted(set(outcomes)) == ["begun", "running"]
    assert outcomes.count("begun") == 1
    first = f"r{outcomes.index('begun')}"
    assert {each.running.request_id for each in found if outcome(each) == "running"} == {first}


async def test_an_answer_is_given_as_often_as_it_is_asked_for(replica: Replicas) -> None:
    """What one replica kept another reads, byte for byte; keeping again, and freeing, change nothing."""
    one, other = await replica(), await replica()
    same = asked()
    claim_id = claim_of(await one.claim(again(same)))
    await one.keep(claim_id, ANSWER)
    await one.keep(claim_id, b"another")
    await one.free(claim_id)
    for _ in range(2):
        found = await other.claim(again(same, request_id="later"))
        assert (outcome(found), found.kept.request_id) == ("kept", "r")
        assert await other.read(UUID(found.kept.claim_id)) == ANSWER


async def test_another_request_under_the_key_is_told_apart(answers: Answers) -> None:
    """While the first runs, and when it is answered."""
    same = asked()
    claim_id = claim_of(await answers.claim(again(same)))
    assert outcome(await answers.claim(again(same, fingerprint=b"other"))) == "reused"
    await answers.keep(claim_id, ANSWER)
    assert outcome(await answers.claim(again(same, fingerprint=b"other"))) == "reused"


@pytest.mark.parametrize("field", ["account_id", "key_id", "operation", "idempotency_key", "stranger"])
async def test_a_key_is_one_callers_for_one_operation(answers: Answers, field: str) -> None:
    """The same words of another account, API key, operation or stranger are another key."""
    same = asked()
    claim_of(await answers.claim(again(same)))
    other: dict[str, Any] = {field: f"another {uuid4()}"}
    claim_of(await answers.claim(again(same, **other)))


async def test_what_was_freed_begins_anew(answers: Answers) -> None:
    """A request for which nothing was charged leaves no trace."""
    same = asked()
    first = claim_of(await answers.claim(again(same)))
    await answers.free(first)
    assert claim_of(await answers.claim(again(same, fingerprint=b"other"))) != first


async def test_whose_router_died_is_not_done_again(answers: Answers, migrated: str) -> None:
    """A claim that nobody renews is lost, not begun anew; renewed it runs, and a late answer is kept all the same."""
    same = asked()
    claim_id = claim_of(await answers.claim(again(same)))
    change(migrated, "leased_until = now() - interval '1 second'", same.account_id)
    found = await answers.claim(again(same))
    assert (outcome(found), found.lost.reason) == ("lost", pb.LOST_REASON_OUTCOME_UNKNOWN)
    await answers.renew([claim_id])
    assert outcome(await answers.claim(again(same))) == "running"
    change(migrated, "leased_until = now() - interval '1 second'", same.account_id)
    await answers.keep(claim_id, ANSWER)
    assert outcome(await answers.claim(again(same))) == "kept"


async def test_an_answer_that_cannot_be_kept_says_why(answers: Answers) -> None:
    """It is not done again either."""
    same = asked()
    await answers.lose(claim_of(await answers.claim(again(same))), pb.LOST_REASON_TOO_LARGE)
    found = await answers.claim(again(same))
    assert (outcome(found), found.lost.reason) == ("lost", pb.LOST_REASON_TOO_LARGE)


async def test_after_a_day_all_is_forgotten(answers: Answers, migrated: str) -> None:
    """A day later the key is free, also for another request, and the sweep leaves neither the answer nor its count."""
    same, others = asked(), asked()
    for each in (same, others):
        await answers.keep(claim_of(await answers.claim(again(each))), ANSWER)
        with psycopg.connect(migrated) as link:
            row = link.execute(
                "select expires_at - kept_at = interval '24 hours' from idempotent_requests where owner = %s",
                (each.account_id,),
            ).fetchone()
        assert row == (True,)
        change(migrated, "expires_at = now()", each.account_id)
    with pytest.raises(NotFound):
        await answers.read(await _claim_id(migrated, same.account_id))
    claim_of(await answers.claim(again(same, fingerprint=b"other")))
    await answers.tidy()
    with psycopg.connect(migrated) as link:
        rows = link.execute("select 1 from idempotent_requests where owner = %s", (others.account_id,)).fetchone()
        counts = link.execute(
            "select 1 from idempotent_room where owner = any(%s)", ([same.account_id, others.account_id],)
        ).fetchone()
    assert (rows, counts) == (None, None)


async def _claim_id(url: str, account: str) -> UUID:
    with psycopg.connect(url) as link:
        row = link.execute("select claim_id from idempotent_requests where owner = %s", (account,)).fetchone()
    assert row
    return UUID(str(row[0]))


async def test_an_accounts_oldest_answers_make_room(replica: Replicas, migrated: str) -> None:
    """Beyond its room an account's oldest answers go, and say so; others' stay, and the count is the sum."""
    answers = await replica(room_bytes=5_000)
    account, other = uuid4().hex, asked()
    await answers.keep(claim_of(await answers.claim(again(other))), bytes(4_000))
    requests = [asked(account, idempotency_key=f"k{n}") for n in range(6)]
    for request in requests:
        await answers.keep(claim_of(await answers.claim(again(request))), bytes(2_000))
    found = [await answers.claim(again(request)) for request in requests]
    assert [outcome(each) for each in found] == ["lost"] * 4 + ["kept"] * 2
    assert found[0].lost.reason == pb.LOST_REASON_EVICTED
    assert outcome(await answers.claim(again(other))) == "kept"
    with psycopg.connect(migrated) as link:
        counted = link.execute(
            "select r.bytes = (select sum(size_bytes) from idempotent_requests where owner = r.owner),"
            " r.bytes <= 5000 from idempotent_room r where owner = %s",
            (account,),
        ).fetchone()
    assert counted == (True, True)


async def test_many_answers_at_once_are_counted_right(replica: Replicas, migrated: str) -> None:
    """Twenty answers kept at once by two replicas, in a room for five: no deadlock, and the count is the sum."""
    replicas = [await replica(room_bytes=5_300), await replica(room_bytes=5_300)]
    account = uuid4().hex

    async def kept(n: int) -> None:
        answers = replicas[n % 2]
        await answers.keep(claim_of(await answers.claim(asked(account, idempotency_key=f"k{n}"))), bytes(1_000))

    await asyncio.gather(*map(kept, range(20)))
    with psycopg.connect(migrated) as link:
        counted = link.execute(
            "select r.bytes = (select sum(size_bytes) from idempotent_requests where owner = r.owner)"
            " from idempotent_room r where owner = %s",
            (account,),
        ).fetchone()
    assert counted == (True,)


async def test_the_database_alone_tells_nothing(replica: Replicas, migrated: str) -> None:
    """Neither the answer, nor the caller's key, nor what was asked stands in it; another pepper opens nothing, nor does
    an answer open under another claim."""
    answers = await replica()
    same = asked(idempotency_key="a key with a secret in it", fingerprint=b"what was asked, in full")
    claim_id = claim_of(await answers.claim(again(same)))
    await answers.keep(claim_id, ANSWER)
    with psycopg.connect(migrated) as link:
        rows = link.execute(
            "select name || fingerprint || answer, request_id || owner from idempotent_requests where owner = %s",
            (same.account_id,),
        ).fetchall()
    (row,) = rows
    for told in (ANSWER, b"a key with a secret", b"what was asked"):
        assert told not in bytes(row[0])
        assert told.decode() not in row[1]
    with pytest.raises(NotFound):
        await (await replica(pepper=b"another pepper of 32 bytes or so")).read(claim_id)
    swapped = asked()
    moved = claim_of(await answers.claim(again(swapped)))
    with psycopg.connect(migrated) as link:
        link.execute(
            "update idempotent_requests set kept_at = now(), answer = (select answer from idempotent_requests where"
            " claim_id = %s) where claim_id = %s",
            (claim_id, moved),
        )
    with pytest.raises(NotFound):
        await answers.read(moved)


async def test_an_old_database_takes_claims(database: Database) -> None:
    """A database of the release before is brought up to date as it is."""
    url = database.create("t_answers_before")
    migrations.upgrade(url, SCHEMA, "0013")
    assert "0014" in migrations.upgrade(url, SCHEMA)
    postgres = Postgres(url, size=1, wait_s=20)
    await postgres.open()
    answers = Answers(postgres, pepper=PEPPER, lease_s=30)
    claim_id = claim_of(await answers.claim(asked("old")))
    await answers.keep(claim_id, ANSWER)
    assert await answers.read(claim_id) == ANSWER
    await postgres.close()


async def test_a_full_disk_keeps_no_answer_and_loses_no_claim(answers: Answers, migrated: str) -> None:
    """An answer for which the database has no room is refused as one that cannot be stored now; its claim stands, other
    requests are served, and it is kept when there is room."""
    request = asked()
    claim = claim_of(await answers.claim(request))
    with psycopg.connect(migrated, autocommit=True) as link:
        link.execute(
            "create function full_disk() returns trigger language plpgsql as"
            " $$ begin raise 'could not extend file' using errcode = 'disk_full'; end $$"
        )
        link.execute(
            "create trigger full_disk before update on idempotent_requests"
            f" for each row when (new.claim_id = '{claim}') execute function full_disk()"
        )
        try:
            with pytest.raises(Unavailable, match="cannot be written now: the database has no room"):
                await answers.keep(claim, ANSWER)
            # It does not count as away: nobody else is refused.
            assert outcome(await answers.claim(asked())) == "begun"
            assert outcome(await answers.claim(again(request))) == "running"
        finally:
            link.execute("drop trigger full_disk on idempotent_requests")
            link.execute("drop function full_disk")
    await answers.keep(claim, ANSWER)
    assert outcome(await answers.claim(again(request))) == "kept"
    assert await answers.read(claim) == ANSWER
