"""Responses made in the background, over the real auth service and its books: made once, whoever vanishes when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from moa.response.v1 import response_store_service_pb2 as pb
from services.auth.adapters.background_responses import BackgroundResponses as Queue
from services.auth.adapters.stored_conversations import StoredConversations
from services.auth.adapters.stored_responses import StoredResponses
from services.auth.adapters.stored_room import Bounds
from services.common.content_sealing import ContentSealer
from services.common.errors import InvalidField, NotFound, QueueFull, Unavailable
from services.common.rpc.client import channel
from services.router.adapters.stored import ResponseStore
from services.router.dialects.reading import Reading
from services.router.dialects.responses import background
from services.router.dialects.responses.background import BackgroundResponses, Job, packed
from services.router.domain.operations import Operations
from tests.auth.asking import TOKEN
from tests.auth.conftest import Admit, Auth
from tests.router.rig import CATALOGUE, Played, ended, said, text

MESSAGES = [text(said("a")), text(said("b")), text(said("c")), ended()]
"""An answer of 12 tokens."""
WHOLE = 12


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event is stored by itself, and renewals follow each other at once."""
    monkeypatch.setattr(background, "FLUSH_S", 0.0)
    monkeypatch.setattr(background, "RENEW_S", 0.01)


class Gate:
    """Where an answer waits until it is let go on."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.opened.wait()


class Router:
    """A router that makes responses in the background; whoever answers is played."""

    def __init__(self, auth: Auth, admission: Any) -> None:
        self.link = channel(auth.address)
        self.played = Played()
        self.store = ResponseStore(self.link, service_token=TOKEN)
        operations = Operations(
            catalogue=lambda: CATALOGUE, admission=admission, backends=self.played, inputs=None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.making = BackgroundResponses(self.store, operations, Reading(), service_token=TOKEN)

    async def vanish(self) -> None:
        """Have nobody hear of it any more; what is being made goes on, as in a process that is taken for dead."""

        silent = asyncio.Event()

        async def unheard(_: object) -> pb.RenewResponse:
            silent.set()
            raise Unavailable("nobody hears of this router")

        self.store.renew = unheard  # type: ignore[method-assign,assignment]
        # One that was on its way has been answered.
        await silent.wait()


Routers = Callable[[], Awaitable[Router]]


@pytest.fixture
async def routers(auth: Auth, admit: Admit) -> AsyncIterator[Routers]:
    made: list[Router] = []

    async def one() -> Router:
        made.append(Router(auth, await admit(auth, journal=None)))
        return made[-1]

    yield one
    for router in made:
        await router.making.aclose()
        await router.link.close()


def asked(account: str, key: str, *, stream: bool = True, **body: Any) -> pb.EnqueueRequest:
    """Return a response that is to be made."""
    name = f"resp_{uuid4().hex}"
    given = json.dumps({"model": "smart", "input": "hi", "stream": stream, "background": True, **body}).encode()
    job = Job(body=given, content_type="application/json", earlier=0, strict=False, created=7, known=["background"])
    told = {"id": name, "status": "queued", "output": []}
    response = pb.StoredResponse(
        response_id=name, account_id=account, body=json.dumps(told).encode(), input=[b'{"id": "msg_1"}']
    )
    return pb.EnqueueRequest(response=response, request=packed(job), key_id=key, streamed=stream)


async def lapse(auth: Auth, name: str) -> None:
    """Let the lease of a making end."""
    async with auth.postgres.transaction() as link:
        await link.execute("update stored_responses set leased_until = now() - interval '1 s' where id = %s", (name,))


async def charged(auth: Auth, account: str, tokens: int) -> None:
    """Wait until so much is booked; and no more is."""
    while auth.spent(account)[0] < tokens:
        await asyncio.sleep(0.01)
    assert auth.spent(account)[0] == tokens


def numbers(events: Any) -> list[int]:
    return [json.loads(event.partition(b"data: ")[2])["sequence_number"] for event in events]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_made_in_the_background(auth: Auth, routers: Routers, *, stream: bool) -> None:
    """It is found amid it and when it has ended, with its events where they were asked for, and charged once."""
    account, key, _ = await auth.account()
    router = await routers()
    gate = Gate()
    router.played.script = [MESSAGES[0], gate, *MESSAGES[1:]]
    request = asked(account, key, stream=stream)
    name = request.response.response_id
    await router.making.enqueue(request)
    await gate.reached.wait()
    amid = await router.store.read(account, name)
    assert (json.loads(amid.body)["status"], amid.state) == ("in_progress", pb.RESPONSE_STATE_IN_PROGRESS)
    gate.opened.set()
    await router.making.idle()
    found = await router.store.read(account, name)
    body = json.loads(found.body)
    assert (body["status"], body["background"], body["store"], body["created_at"]) == ("completed", True, True, 7)
    assert body["output"][0]["content"][0]["text"] == "abc"
    events = await router.store.events(account, name, -1)
    assert events.streamed is stream
    assert numbers(events.events) == (list(range(len(events.events))) if stream else [])
    assert bool(events.events) is stream
    assert (await router.store.input_of(account, name), len(router.played.texts)) == ([b'{"id": "msg_1"}'], 1)
    await charged(auth, account, WHOLE)


@pytest.mark.parametrize("at", range(len(MESSAGES) + 1))
async def test_who_vanishes_at_any_moment_is_followed_by_another(auth: Auth, routers: Routers, at: int) -> None:
    """The response is made whole by the other and charged once, though the first one goes on to its answer's end."""
    account, key, _ = await auth.account()
    first, second = await routers(), await routers()
    gate = Gate()
    # Behind the last message: the end is about to be stored.
    first.played.script = [*MESSAGES[:at], gate, *MESSAGES[at:]]
    second.played.script = list(MESSAGES)
    request = asked(account, key)
    name = request.response.response_id
    if at == len(MESSAGES):
        finish = first.store.finish

        async def late(asked: pb.FinishRequest) -> bool:
            await gate()
            return await finish(asked)

        first.store.finish = late  # type: ignore[method-assign]
    await first.making.enqueue(request)
    await gate.reached.wait()
    await first.vanish()
    before = await first.store.events(account, name, -1)
    await lapse(auth, name)
    await second.making.take_up()
    await second.making.idle()
    events = await second.store.events(account, name, -1)
    used = numbers(before.events)
    told = numbers(events.events)
    assert told == list(range(told[0], told[0] + len(told)))
    assert told[0] > max(used, default=-1)
    gate.opened.set()
    await first.making.idle()
    found = await second.store.read(account, name)
    body = json.loads(found.body)
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", "abc")
    assert (await second.store.events(account, name, -1)).events == events.events
    for cut in told:
        rest = await second.store.events(account, name, cut)
        assert numbers(rest.events) == list(range(cut + 1, told[-1] + 1))
    await charged(auth, account, WHOLE)


async def test_who_vanishes_behind_the_end_is_charged_all_the_same(auth: Auth, routers: Routers) -> None:
    """The end is stored with what it came to: it is booked though its router never says so, and once when it does."""
    account, key, _ = await auth.account()
    router = await routers()
    gate = Gate()
    router.played.script = list(MESSAGES)
    finish = router.store.finish

    async def unheard(asked: pb.FinishRequest) -> bool:
        counted = await finish(asked)
        await gate()
        return counted

    router.store.finish = unheard  # type: ignore[method-assign]
    request = asked(account, key)
    await router.making.enqueue(request)
    await gate.reached.wait()
    await charged(auth, account, WHOLE)
    gate.opened.set()
    await router.making.idle()
    await charged(auth, account, WHOLE)


async def test_an_end_whose_answer_was_lost_is_stored_once(auth: Auth, routers: Routers) -> None:
    """A router that did not hear that the end was stored stores it again, and nothing is charged twice."""
    account, key, _ = await auth.account()
    router = await routers()
    router.played.script = list(MESSAGES)
    finish, told = router.store.finish, []

    async def lossy(asked: pb.FinishRequest) -> bool:
        told.append(await finish(asked))
        if len(told) == 1:
            raise Unavailable("the answer was lost")
        return told[-1]

    router.store.finish = lossy  # type: ignore[method-assign]
    await router.making.enqueue(asked(account, key))
    await router.making.idle()
    assert told == [True, True]
    await charged(auth, account, WHOLE)


async def test_a_cancelled_response_ends_and_owes_what_was_made(auth: Auth, routers: Routers) -> None:
    """Its account sees it cancelled at once; its maker stops, and the prompt and what was made are charged."""
    account, key, _ = await auth.account()
    router = await routers()
    gate = Gate()
    router.played.script = [*MESSAGES[:2], gate, *MESSAGES[2:]]
    request = asked(account, key)
    name = request.response.response_id
    await router.making.enqueue(request)
    await gate.reached.wait()
    body = json.loads(await router.store.cancel(account, name))
    assert (body["id"], body["status"]) == (name, "cancelled")
    assert json.loads(await router.store.cancel(account, name)) == body
    await router.making.idle()
    assert (await router.store.read(account, name)).state == pb.RESPONSE_STATE_CANCELLED
    while not (tokens := auth.spent(account)[0]):
        await asyncio.sleep(0.01)
    assert tokens > 0
    assert (await router.store.claim()).response_id == ""
    with pytest.raises(NotFound):
        await router.store.cancel("acc_another", name)


async def test_a_response_that_is_deleted_amid_is_made_no_further(auth: Auth, routers: Routers) -> None:
    """Its maker stops, and leaves nothing behind."""
    account, key, _ = await auth.account()
    router = await routers()
    gate = Gate()
    router.played.script = [*MESSAGES[:1], gate, *MESSAGES[1:]]
    request = asked(account, key)
    await router.making.enqueue(request)
    await gate.reached.wait()
    await router.store.delete(account, request.response.response_id)
    await router.making.idle()
    assert auth.query("select * from stored_room where account_id = %s", account) == []


async def test_a_router_that_ends_puts_back_what_it_makes(auth: Auth, routers: Routers) -> None:
    """Another takes it up at once, as if it had never been begun, and it is charged once."""
    account, key, _ = await auth.account()
    first, second = await routers(), await routers()
    gate = Gate()
    first.played.script = [*MESSAGES[:2], gate]
    second.played.script = list(MESSAGES)
    request = asked(account, key)
    await first.making.enqueue(request)
    await gate.reached.wait()
    await first.making.aclose()
    await second.making.take_up()
    await second.making.idle()
    found = await second.store.read(account, request.response.response_id)
    assert found.state == pb.RESPONSE_STATE_COMPLETED
    await charged(auth, account, WHOLE)


async def test_a_renewal_that_comes_late_takes_nothing_back(auth: Auth, routers: Routers) -> None:
    """What a router put back is another's at once, though a renewal of that router's was still on its way."""
    account, key, _ = await auth.account()
    store, request = (await routers()).store, asked(account, key)
    name = request.response.response_id
    await store.enqueue(request)
    claimed = await store.claim()
    made = pb.Made(response_id=name, fence=claimed.fence)
    await store.put_back(made)
    assert list((await store.renew([made])).lost) == [name]
    again = await store.claim()
    assert (again.response_id, again.attempt) == (name, claimed.attempt)


async def test_what_interrupts_all_who_make_it_fails(auth: Auth, routers: Routers) -> None:
    """After three makings whose routers vanished the response has failed, and says why; nothing is charged."""
    account, key, _ = await auth.account()
    router = await routers()
    request = asked(account, key)
    name = request.response.response_id
    await router.store.enqueue(request)
    for _ in range(3):
        assert (await router.store.claim()).response_id == name
        await lapse(auth, name)
    await router.making.take_up()
    await router.making.idle()
    body = json.loads((await router.store.read(account, name)).body)
    assert (body["status"], body["error"]["message"]) == ("failed", "it was interrupted 3 times")
    assert auth.spent(account) == (0, 0)


async def test_what_is_refused_when_it_is_made_fails(auth: Auth, routers: Routers) -> None:
    """A key that was revoked meanwhile makes nothing: the response says why it failed."""
    account, key, _ = await auth.account()
    router = await routers()
    request = asked(account, key)
    await router.store.enqueue(request)
    async with auth.postgres.transaction() as link:
        await link.execute("update keys set revoked_at = now() where id = %s", (key,))
    await router.making.take_up()
    await router.making.idle()
    found = await router.store.read(account, request.response.response_id)
    assert found.state == pb.RESPONSE_STATE_FAILED
    assert "key" in json.loads(found.body)["error"]["message"]
    assert router.played.texts == []


async def test_so_many_of_an_account_wait(auth: Auth) -> None:
    """The next is refused, and says when it can be sent; another account's is not."""
    sealer, bounds = ContentSealer([b"a secret of the test's"]), Bounds()
    stored = StoredResponses(auth.postgres, sealer, bounds, StoredConversations(auth.postgres, sealer, bounds))
    queue = Queue(auth.postgres, sealer, bounds, stored, most_waiting=2)
    for _ in range(2):
        await queue.enqueue(asked("acc_full", "key"))
    with pytest.raises(QueueFull, match="2 responses of this account"):
        await queue.enqueue(asked("acc_full", "key"))
    await queue.enqueue(asked("acc_free", "key"))
    async with auth.postgres.transaction() as link:
        await link.execute("delete from stored_responses where account_id = any(%s)", (["acc_full", "acc_free"],))


async def test_what_is_made_in_the_foreground_cannot_be_cancelled(auth: Auth, routers: Routers) -> None:
    """It is said, and what to do instead."""
    router = await routers()
    made = pb.StoredResponse(
        response_id=f"resp_{uuid4().hex}", account_id="acc_1", state=pb.RESPONSE_STATE_COMPLETED, body=b'{"output":[]}'
    )
    await router.store.store(made)
    with pytest.raises(InvalidField, match="background: true"):
        await router.store.cancel("acc_1", made.response_id)
