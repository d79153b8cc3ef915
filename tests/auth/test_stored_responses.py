"""Stored responses, over the real PostgreSQL: found by their account alone, gone on from, bounded and forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from moa.response.v1 import response_store_service_pb2 as pb
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.deleting import erase
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.stored_conversations import StoredConversations
from services.auth.adapters.stored_responses import StoredResponses
from services.auth.adapters.stored_room import Bounds
from services.auth.domain.accounts import DEFAULT_LIMITS
from services.auth.domain.storing import Storing
from services.common.content_sealing import ContentSealer, packed, unpacked
from services.common.errors import Conflict, InvalidField, MoaError, NotFound, QuotaExhausted, TooLarge

SECRET = b"a secret of the operator's"
Replicas = Callable[..., Awaitable[StoredResponses]]


@pytest.fixture
async def replica(migrated: str) -> AsyncIterator[Replicas]:
    """Make replicas, each with connections of its own."""
    opened: list[Postgres] = []

    async def made(*secrets: bytes, **bounds: Any) -> StoredResponses:
        postgres = Postgres(migrated, size=2, wait_s=20)
        await postgres.open()
        opened.append(postgres)
        kept = postgres, ContentSealer(secrets or (SECRET,)), Bounds(**bounds)
        return StoredResponses(*kept, StoredConversations(*kept))

    yield made
    for postgres in opened:
        await postgres.close()


@pytest.fixture
async def kept(replica: Replicas) -> StoredResponses:
    return await replica()


def an_account() -> str:
    return f"acc_{uuid4().hex}"


def said(words: str) -> bytes:
    return json.dumps({"type": "message", "role": "user", "content": words, "id": f"msg_{words}"}).encode()


def a_response(account: str, previous: str = "", *, words: str = "", **more: Any) -> pb.StoredResponse:
    """Return a response that says what was asked."""
    name = f"resp_{uuid4().hex}"
    words = words or name
    body = {"id": name, "output": [{"type": "message", "id": f"out_{words}", "content": f"re: {words}"}]}
    given: dict[str, Any] = {"state": pb.RESPONSE_STATE_COMPLETED, "input": [said(words)], **more}
    return pb.StoredResponse(
        response_id=name, account_id=account, previous_response_id=previous, body=json.dumps(body).encode(), **given
    )


async def a_chain(kept: StoredResponses, account: str, length: int) -> list[pb.StoredResponse]:
    made: list[pb.StoredResponse] = []
    for number in range(length):
        previous = made[-1].response_id if made else ""
        made.append(a_response(account, previous, words=f"{number}"))
        await kept.store(made[-1])
    return made


def ids(items: Sequence[bytes]) -> list[str]:
    return [json.loads(item)["id"] for item in items]


def change(url: str, statement: str, *given: object) -> None:
    """Change rows: time passes, or somebody has the database's files."""
    with psycopg.connect(url) as link:
        link.execute(statement, given)


def rows(url: str, statement: str, *given: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as link:
        return link.execute(statement, given).fetchall()


async def test_a_response_is_found_as_it_was_told(kept: StoredResponses) -> None:
    """What is read is what was stored, and storing it again changes nothing."""
    account = an_account()
    made = a_response(account)
    await kept.store(made)
    await kept.store(made)
    found = await kept.read(account, made.response_id)
    assert (found.body, found.state) == (made.body, pb.RESPONSE_STATE_COMPLETED)
    assert await kept.input_of(account, made.response_id) == list(made.input)


@pytest.mark.parametrize("length", [1, 2, 7])
async def test_what_a_response_goes_on_from_is_all_before_it_in_order(kept: StoredResponses, length: int) -> None:
    """Input and output of each response of a chain, the oldest first; each tells what it was made from itself."""
    account = an_account()
    made = await a_chain(kept, account, length)
    expected = [name for number in range(length) for name in (f"msg_{number}", f"out_{number}")]
    assert ids((await kept.prepare(account, made[-1].response_id))[0]) == expected
    for number, each in enumerate(made):
        assert ids(await kept.input_of(account, each.response_id)) == [*expected[: 2 * number], f"msg_{number}"]


async def test_a_response_of_another_account_does_not_exist(kept: StoredResponses) -> None:
    """Whatever is asked of it, a foreign id is refused as an unknown one is."""
    mine, other = an_account(), an_account()
    made = a_response(mine, events=[b"data: 0\n\n"])
    await kept.store(made)
    for name in (made.response_id, "resp_none", "x" * 300, "\u00e9'--"):
        asked = [kept.read, kept.input_of, kept.delete, kept.prepare]
        for each in asked:
            with pytest.raises(NotFound):
                await each(other, name)  # type: ignore[operator]
        with pytest.raises(NotFound):
            await kept.events(other, name, -1)
    assert (await kept.read(mine, made.response_id)).body == made.body


async def test_a_deleted_response_is_gone_with_what_came_of_it(kept: StoredResponses, migrated: str) -> None:
    """It is found no more, and its room is free; what went on from it can be read, and gone on from no more."""
    account = an_account()
    first, second = await a_chain(kept, account, 2)
    await kept.delete(account, first.response_id)
    for each in (kept.read, kept.input_of, kept.delete):
        with pytest.raises(NotFound):
            await each(account, first.response_id)
    assert ids(await kept.input_of(account, second.response_id)) == ["msg_1"]
    with pytest.raises(NotFound, match=f"{first.response_id}, which {second.response_id} goes on from"):
        await kept.prepare(account, second.response_id)
    await kept.delete(account, second.response_id)
    assert rows(migrated, "select * from stored_room where account_id = %s", account) == []


@pytest.mark.parametrize("at", range(-1, 6))
async def test_events_go_on_behind_any_of_them(kept: StoredResponses, at: int) -> None:
    """Whoever has read so many events has the rest, and both together are all."""
    account = an_account()
    events = [f"event: x\ndata: {number}\n\n".encode() for number in range(5)]
    made = a_response(account, events=events)
    await kept.store(made)
    found = await kept.events(account, made.response_id, at)
    assert found.streamed
    assert events[: at + 1] + list(found.events) == events


async def test_what_is_gone_on_from_lives_as_long_as_what_goes_on(replica: Replicas, migrated: str) -> None:
    """A response is forgotten when its time is over; one that others went on from has theirs."""
    kept = await replica(keep_s=1000)
    account = an_account()
    alone = a_response(account)
    await kept.store(alone)
    first, second = await a_chain(kept, account, 2)
    change(migrated, "update stored_responses set expires_at = now() + interval '400 s' where account_id = %s", account)
    await kept.store(a_response(account, second.response_id))
    change(
        migrated,
        "update stored_responses set expires_at = expires_at - interval '500 s' where account_id = %s",
        account,
    )
    with pytest.raises(NotFound):
        await kept.read(account, alone.response_id)
    await kept.tidy()
    left = rows(migrated, "select id from stored_responses where account_id = %s", account)
    assert {first.response_id, second.response_id} < {row[0] for row in left}
    assert alone.response_id not in {row[0] for row in left}
    assert rows(migrated, "select entries from stored_room where account_id = %s", account) == [(3,)]


async def test_an_account_has_room_for_so_much(replica: Replicas, migrated: str) -> None:
    """The next is refused before it is made, and by the store; others have rooms of their own; deleting makes room."""
    kept = await replica(entries=2)
    account = an_account()
    made = await a_chain(kept, account, 2)
    for refused in (kept.prepare(account, ""), kept.store(a_response(account))):
        with pytest.raises(QuotaExhausted, match=r"stored 2 responses.*DELETE /v1/responses/\{id\}.*store: false"):
            await refused
    assert len((await kept.prepare(account, made[-1].response_id, stores=False))[0]) == 4
    await kept.store(a_response(an_account()))
    await kept.delete(account, made[0].response_id)
    await kept.store(a_response(account))
    assert rows(migrated, "select entries from stored_room where account_id = %s", account) == [(2,)]


async def test_bytes_are_bounded(replica: Replicas) -> None:
    """One response, all of an account, and what one may go on from have so many bytes; a refusal says what to do."""
    account = an_account()
    noise = uuid4().hex * 40
    kept = await replica(one_bytes=400)
    with pytest.raises(TooLarge, match="store: false"):
        await kept.store(a_response(account, input=[uuid4().hex.encode() * 40 for _ in range(20)]))
    small = await replica(bytes=300)
    await small.store(a_response(account))
    with pytest.raises(QuotaExhausted, match="MiB of responses"):
        await small.store(a_response(account, input=[noise.encode()]))
    made = await a_chain(await replica(), account, 5)
    with pytest.raises(TooLarge, match="begin anew"):
        await kept.prepare(account, made[-1].response_id)


async def test_a_chain_is_as_long_as_it_may_be(replica: Replicas) -> None:
    """A response that went on from as many as may be is gone on from no more, and says what to do."""
    kept = await replica(chain=3)
    account = an_account()
    made = await a_chain(kept, account, 4)
    assert len((await kept.prepare(account, made[2].response_id))[0]) == 6
    with pytest.raises(InvalidField, match="begin anew"):
        await kept.prepare(account, made[3].response_id)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (pb.RESPONSE_STATE_INCOMPLETE, None),
        (pb.RESPONSE_STATE_FAILED, InvalidField),
        (pb.RESPONSE_STATE_CANCELLED, InvalidField),
        (pb.RESPONSE_STATE_IN_PROGRESS, Conflict),
        (pb.RESPONSE_STATE_QUEUED, Conflict),
    ],
)
async def test_only_what_ended_well_is_gone_on_from(
    kept: StoredResponses, migrated: str, state: Any, error: type[MoaError] | None
) -> None:
    """One that was cut short can be gone on from; one that failed, or is being made, cannot, and says why."""
    account = an_account()
    made = a_response(account)
    await kept.store(made)
    change(migrated, "update stored_responses set state = %s where id = %s", state, made.response_id)
    if error is None:
        assert len((await kept.prepare(account, made.response_id))[0]) == 2
    else:
        with pytest.raises(error) as refused:
            await kept.prepare(account, made.response_id)
        assert refused.value.param == "previous_response_id"


async def test_what_is_stored_can_be_read_with_its_key_alone(replica: Replicas, migrated: str) -> None:
    """The database holds no word of it. A key that is replaced reads on while it is listed, and then no more."""
    kept = await replica()
    account = an_account()
    made = a_response(account, words="a word that nobody else may read", events=[b"data: a word that\n\n"])
    await kept.store(made)
    held = rows(
        migrated,
        "select r.input || r.body || e.events from stored_responses r join stored_events e on e.response_id = r.id"
        " where r.id = %s",
        made.response_id,
    )
    assert b"a word" not in bytes(held[0][0])
    new = b"another secret of the operator's"
    rotated = await replica(new, SECRET)
    assert (await rotated.read(account, made.response_id)).body == made.body
    newer = a_response(account)
    await rotated.store(newer)
    after = await replica(new)
    assert (await after.read(account, newer.response_id)).body == newer.body
    with pytest.raises(NotFound):
        await after.read(account, made.response_id)


def test_a_record_cannot_be_opened_as_another() -> None:
    """Whoever can write to the database cannot show one account what another stored."""
    sealer = ContentSealer([SECRET])
    sealed = sealer.seal("resp_1 body", b"mine")
    assert sealer.open("resp_1 body", sealed) == b"mine"
    assert sealer.open("resp_2 body", sealed) is None
    assert sealer.open("resp_1 input", sealed) is None
    assert sealer.open("resp_1 body", sealed[:-1]) is None
    assert sealer.open("resp_1 body", b"") is None


@pytest.mark.parametrize("pieces", [[], [b""], [b"a", b"", b"bc" * 400]])
def test_pieces_are_parted_as_they_were(pieces: list[bytes]) -> None:
    """Several pieces are stored as one."""
    assert unpacked(packed(pieces)) == pieces


@pytest.mark.parametrize(
    ("allowed", "usual", "wish", "stores"),
    [
        (True, False, None, False),
        (True, False, True, True),
        (True, True, None, True),
        (True, True, False, False),
        (False, True, True, False),
    ],
)
def test_an_account_decides_within_what_the_operator_lets(
    allowed: bool, usual: bool, wish: bool | None, stores: bool
) -> None:
    """Its own wish counts where any may be stored, and the operator's default where it has none."""
    assert Storing(allowed=allowed, usual=usual).of(wish) is stores


async def test_a_deleted_account_leaves_nothing(kept: StoredResponses, migrated: str) -> None:
    """What it had stored goes in the transaction that deletes it."""
    postgres = Postgres(migrated, size=1, wait_s=20)
    await postgres.open()
    account = await Accounts(postgres).create(role="user", limits=DEFAULT_LIMITS, rules=[])
    await kept.store(a_response(account, events=[b"data: 0\n\n"]))
    async with postgres.transaction() as link:
        await erase(link, account, actor="console")
    await postgres.close()
    for table in ("stored_responses", "stored_room"):
        assert rows(migrated, f"select * from {table} where account_id = %s", account) == []
