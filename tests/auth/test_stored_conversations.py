"""Stored conversations, over the real PostgreSQL, and the responses that are made in them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from moa.response.v1 import conversation_store_service_pb2 as conversation_pb
from moa.response.v1 import response_store_service_pb2 as pb
from services.auth.adapters.background_responses import BackgroundResponses
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.stored_conversations import StoredConversations, items_of
from services.auth.adapters.stored_responses import StoredResponses
from services.auth.adapters.stored_room import Bounds
from services.auth.storing import Kept
from services.common.content_sealing import ContentSealer
from services.common.errors import InvalidField, NotFound, QuotaExhausted, TooLarge

Stores = Callable[..., Awaitable[Kept]]


@pytest.fixture
async def stores(migrated: str) -> AsyncIterator[Stores]:
    """Make stores, each with connections of its own."""
    opened: list[Postgres] = []

    async def made(**bounds: Any) -> Kept:
        postgres = Postgres(migrated, size=2, wait_s=20)
        await postgres.open()
        opened.append(postgres)
        given = postgres, ContentSealer([b"a secret of the operator's"]), Bounds(**bounds)
        conversations = StoredConversations(*given)
        responses = StoredResponses(*given, conversations)
        return Kept(responses, BackgroundResponses(*given, responses), conversations)

    yield made
    for postgres in opened:
        await postgres.close()


@pytest.fixture
async def kept(stores: Stores) -> Kept:
    return await stores()


def items(*names: str) -> list[bytes]:
    return [json.dumps({"type": "message", "role": "user", "content": name, "id": name}).encode() for name in names]


async def a_conversation(kept: Kept, account: str, *names: str) -> str:
    request = conversation_pb.CreateConversationRequest(
        account_id=account, conversation_id=f"conv_{uuid4().hex}", metadata=b"{}", items=items_of(items(*names))
    )
    return (await kept.conversations.create(request)).conversation_id


async def listed(kept: Kept, account: str, name: str, **more: Any) -> tuple[list[str], bool]:
    asked = {"limit": 100, **more}
    found = await kept.conversations.items(
        conversation_pb.ReadItemsRequest(account_id=account, conversation_id=name, **asked)
    )
    return ids(found.items), found.has_more


def ids(found: Sequence[bytes]) -> list[str]:
    return [json.loads(item)["id"] for item in found]


def account() -> str:
    return f"acc_{uuid4().hex}"


def response(owner: str, name: str, words: str, until: int, **more: Any) -> pb.StoredResponse:
    body = {"output": [{"type": "message", "id": f"re_{words}", "content": words}]}
    given: dict[str, Any] = {"state": pb.RESPONSE_STATE_COMPLETED, **more}
    return pb.StoredResponse(
        response_id=f"resp_{uuid4().hex}",
        account_id=owner,
        conversation_id=name,
        conversation_until=until,
        input=items(words),
        body=json.dumps(body).encode(),
        **given,
    )


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 9])
async def test_pages_of_items_are_all_items(kept: Kept, limit: int, *, descending: bool) -> None:
    """Page after page, in either order, gives each item once; the last says that there are no more."""
    owner = account()
    name = await a_conversation(kept, owner, *"abcde")
    found: list[str] = []
    more = True
    while more:
        after = found[-1] if found else ""
        page, more = await listed(kept, owner, name, limit=limit, descending=descending, after=after)
        assert 0 < len(page) <= limit
        found += page
    assert found == sorted("abcde", reverse=descending)
    with pytest.raises(InvalidField, match="no such item"):
        await listed(kept, owner, name, after="none")


async def test_a_response_goes_on_from_its_conversation_and_is_added_to_it(kept: Kept) -> None:
    """Its input and output follow what was there; what it was made from is told of it, whatever is added later."""
    owner = account()
    name = await a_conversation(kept, owner, "a")
    made = []
    for words in ("b", "c"):
        before, until = await kept.responses.prepare(owner, conversation_id=name)
        made.append(response(owner, name, words, until))
        await kept.responses.store(made[-1])
        assert ids(before) == ["a", "b", "re_b"][: len(before)]
    assert await listed(kept, owner, name) == (["a", "b", "re_b", "c", "re_c"], False)
    assert ids(await kept.responses.input_of(owner, made[0].response_id)) == ["a", "b"]
    assert ids(await kept.responses.input_of(owner, made[1].response_id)) == ["a", "b", "re_b", "c"]
    # Gone on from by its id, too, as the conversation was then.
    assert ids((await kept.responses.prepare(owner, made[0].response_id))[0]) == ["a", "b", "re_b"]


@pytest.mark.parametrize(
    ("state", "is_added"), [(pb.RESPONSE_STATE_INCOMPLETE, True), (pb.RESPONSE_STATE_FAILED, False)]
)
async def test_what_failed_is_no_part_of_its_conversation(kept: Kept, state: Any, *, is_added: bool) -> None:
    """The next response goes on without it."""
    owner = account()
    name = await a_conversation(kept, owner)
    await kept.responses.store(response(owner, name, "x", 0, state=state))
    assert bool((await listed(kept, owner, name))[0]) is is_added


async def test_what_is_made_in_the_background_is_added_when_it_ends(kept: Kept) -> None:
    """Not before, and once; a conversation that was deleted meanwhile keeps it from ending no more."""
    owner = account()
    for gone in (False, True):
        name = await a_conversation(kept, owner, "a")
        waiting = response(owner, name, "b", 1, state=pb.RESPONSE_STATE_QUEUED)
        fence = await kept.background.enqueue(
            pb.EnqueueRequest(response=waiting, request=b"x", key_id="key", claims=True)
        )
        assert (await listed(kept, owner, name))[0] == ["a"]
        if gone:
            await kept.conversations.delete(owner, name)
        finish = pb.FinishRequest(
            made=pb.Made(response_id=waiting.response_id, fence=fence),
            state=pb.RESPONSE_STATE_COMPLETED,
            body=waiting.body,
        )
        for _ in range(2):
            assert await kept.background.finish(finish)
        if not gone:
            assert (await listed(kept, owner, name))[0] == ["a", "b", "re_b"]


async def test_a_conversation_of_another_account_does_not_exist(kept: Kept) -> None:
    """Whatever is asked of it, a foreign id is refused as an unknown one is."""
    owner, other = account(), account()
    name = await a_conversation(kept, owner, "a")
    for asked in (name, "conv_none"):
        for refused in (
            kept.conversations.read(other, asked),
            kept.conversations.update(other, asked, b"{}"),
            kept.conversations.delete(other, asked),
            kept.conversations.add_items(other, asked, []),
            kept.conversations.delete_item(other, asked, "a"),
            listed(kept, other, asked),
            kept.responses.prepare(other, conversation_id=asked),
            kept.responses.store(response(other, asked, "x", 0)),
        ):
            with pytest.raises(NotFound):
                await refused
    assert (await listed(kept, owner, name))[0] == ["a"]


async def test_an_item_is_there_once(kept: Kept) -> None:
    """One whose id is there already is left as it is; a deleted one is gone, and its room free."""
    owner = account()
    name = await a_conversation(kept, owner, "a", "b")
    await kept.conversations.add_items(owner, name, items_of(items("b", "c")))
    assert (await listed(kept, owner, name))[0] == ["a", "b", "c"]
    await kept.conversations.delete_item(owner, name, "b")
    assert (await listed(kept, owner, name))[0] == ["a", "c"]
    with pytest.raises(NotFound, match="no item"):
        await listed(kept, owner, name, item_id="b")
    assert (await listed(kept, owner, name, item_id="c"))[0] == ["c"]


async def test_what_a_conversation_holds_is_bounded(stores: Stores, migrated: str) -> None:
    """It counts on its account's room, to the byte; one that is too long is gone on from no more, and says so."""
    kept, owner = await stores(entries=1), account()
    name = await a_conversation(kept, owner, "a", "b")
    with pytest.raises(QuotaExhausted, match="delete some"):
        await a_conversation(kept, owner)
    with pytest.raises(TooLarge, match="begin anew"):
        await (await stores(one_bytes=50)).responses.prepare(owner, conversation_id=name)
    await kept.conversations.update(owner, name, json.dumps({"topic": uuid4().hex}).encode())
    with psycopg.connect(migrated) as link:
        found = link.execute(
            "select r.entries, r.bytes, c.size_bytes, length(c.metadata)"
            " + (select sum(length(item)) from stored_items where conversation_id = c.id)"
            " from stored_room r join stored_conversations c using (account_id) where account_id = %s",
            (owner,),
        ).fetchone()
    assert found is not None
    assert (found[0], len(set(found[1:]))) == (1, 1)
    await kept.conversations.delete(owner, name)
    await a_conversation(kept, owner)


async def test_a_conversation_is_forgotten_when_its_time_is_over(kept: Kept, migrated: str) -> None:
    """Each item that is added gives it all its time again."""
    owner = account()
    name, alone = await a_conversation(kept, owner, "a"), await a_conversation(kept, owner, "a")
    soon = "update stored_conversations set expires_at = now() + interval '1 s' where account_id = %s"
    with psycopg.connect(migrated) as link:
        link.execute(soon, (owner,))
    await kept.conversations.add_items(owner, name, items_of(items("b")))
    with psycopg.connect(migrated) as link:
        link.execute(
            "update stored_conversations set expires_at = expires_at - interval '1 day' where account_id = %s", (owner,)
        )
    await kept.conversations.tidy()
    assert (await listed(kept, owner, name))[0] == ["a", "b"]
    with pytest.raises(NotFound):
        await kept.conversations.read(owner, alone)
    with psycopg.connect(migrated) as link:
        assert link.execute("select entries from stored_room where account_id = %s", (owner,)).fetchall() == [(1,)]
