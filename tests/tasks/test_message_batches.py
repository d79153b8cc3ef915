"""Batches of messages over the real database: claims, results, ends; whoever answers is played."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from services.common.content_sealing import ContentSealer
from services.common.dialects import ANTHROPIC
from services.common.errors import (
    AnswerLost,
    Conflict,
    InvalidField,
    Malformed,
    MoaError,
    ModelNotFound,
    NotFound,
    QueueFull,
    RateLimited,
    RequestRunning,
    UpstreamOverloaded,
)
from services.tasks.adapters import batches as kept
from services.tasks.adapters.batch_content import BatchContent
from services.tasks.adapters.batch_queue import BatchQueue
from services.tasks.adapters.batches import Batches
from services.tasks.adapters.database import BATCHES, Database, Notices
from services.tasks.dialects.anthropic import bodies
from services.tasks.domain.batch import MOST_OPEN, SUCCEEDED, Batch, Claimed
from services.tasks.worker.batches import TRIES, BatchWorker

LEASE_S = 30.0
MESSAGE = b'{"type":"message"}'


def rendered(error: MoaError, request_id: str) -> Any:
    return ANTHROPIC.render(error, request_id=request_id)


CONTENT = BatchContent(ContentSealer([b"a secret of the operator's"]))


@pytest.fixture
def batches(tasks_database: Database) -> Batches:
    return Batches(tasks_database, CONTENT)


@pytest.fixture
def queue(tasks_database: Database) -> BatchQueue:
    return BatchQueue(tasks_database, CONTENT, per_account=2, lease_s=LEASE_S)


async def created(batches: Batches, count: int = 1, account: str = "acc") -> Batch:
    requests = [(f"r{n}", b'{"model":"m%d"}' % n) for n in range(count)]
    return await batches.create(account, "key", requests, ["moa-tags", "nightly"])


async def results(batches: Batches, batch: Batch) -> list[tuple[str, int, Any]]:
    """Return each request's id, state and result."""
    rows = [row async for page in batches.results(batch.id) for row in page]
    return [(custom_id, state, result and json.loads(result)) for custom_id, state, result in rows]


async def passed(database: Database, hours: int) -> None:
    """Have batches be so many hours older."""
    async with database.transaction() as link:
        await link.execute("update tasks.message_batches set expires_at = expires_at - %s", (timedelta(hours=hours),))


class Answers:
    """Whoever answers: plays what it was given by the request's place, then messages."""

    def __init__(self, *played: Any) -> None:
        self.left = list(played)
        self.keys: list[str] = []

    async def __call__(self, claimed: Claimed, params: bytes) -> bytes:
        assert json.loads(params)["model"].startswith("m")
        self.keys.append(claimed.idempotency_key)
        played = self.left.pop(0) if self.left else MESSAGE
        if isinstance(played, MoaError):
            raise played
        if isinstance(played, asyncio.Event):
            await played.wait()
            return MESSAGE
        return bytes(played)


async def worked(database: Database, queue: BatchQueue, answers: Answers, *, hasten: bool = True) -> None:
    """Work until no batch is open. `hasten`: pauses are over at once."""
    notices = Notices()
    worker = BatchWorker(queue, answers, rendered, notices, room=4, keep_s=3600)
    doing = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(90):
            while await queue.waits():
                if hasten:
                    async with database.transaction() as link:
                        await link.execute("update tasks.message_batch_requests set not_before = now() where state = 1")
                notices.notify(BATCHES)
                await asyncio.sleep(0)
    finally:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


async def test_a_batch_is_answered_and_keeps_its_results(
    tasks_database: Database, batches: Batches, queue: BatchQueue
) -> None:
    """Each request once; results stand beside its caller's ids, in the requests' order; what failed says why."""
    batch = await created(batches, 3)
    assert (batch.status, batch.processing) == ("in_progress", 3)
    answers = Answers(MESSAGE, ModelNotFound("no such model"), MESSAGE)
    await worked(tasks_database, queue, answers)
    ended = await batches.get("acc", batch.id)
    assert (ended.status, ended.succeeded, ended.errored, ended.processing) == ("ended", 2, 1, 0)
    found = await results(batches, batch)
    assert [custom_id for custom_id, _, _ in found] == ["r0", "r1", "r2"]
    (failed,) = [result for _, _, result in found if result["type"] == "errored"]
    assert failed["error"]["error"] == {"type": "not_found_error", "message": "no such model"}
    assert failed["error"]["request_id"].startswith(batch.id)
    assert sorted(answers.keys) == [f"{batch.id}-{n}-0" for n in range(3)]


async def test_what_a_batch_holds_lies_encrypted(tasks_database: Database, batches: Batches, queue: BatchQueue) -> None:
    """Neither a request nor a result can be read in the database, and none can be shown as another's."""
    batch = await created(batches, 2)
    await worked(tasks_database, queue, Answers(b'{"said":"secret"}', b'{"said":"other"}'))
    async with tasks_database.transaction() as link:
        found = await link.execute("select params, result from tasks.message_batch_requests", binary=True)
        rows = await found.fetchall()
        assert not any(word in cell for row in rows for cell in row for word in (b"model", b"said", b"succeeded"))
        await link.execute(
            "update tasks.message_batch_requests q set result = o.result from tasks.message_batch_requests o"
            " where q.batch_id = o.batch_id and q.place = 0 and o.place = 1"
        )
    moved, kept_as_it_was = await results(batches, batch)
    assert moved[2] is None
    assert kept_as_it_was[2]["type"] == "succeeded"


async def test_a_batch_of_before_is_read_as_it_lies(
    tasks_database: Database, batches: Batches, queue: BatchQueue
) -> None:
    """What was written before batches were encrypted is answered and read; what no key opens says so."""
    plain, lost = await created(batches), await created(batches)
    async with tasks_database.transaction() as link:
        await link.execute("update tasks.message_batches set sealed = false where id = %s", (plain.id,))
        await link.execute(
            'update tasks.message_batch_requests set params = \'{"model":"m"}\' where batch_id = %s', (plain.id,)
        )
    other = BatchQueue(
        tasks_database, BatchContent(ContentSealer([b"another operator's"])), per_account=2, lease_s=LEASE_S
    )
    await worked(tasks_database, other, Answers())
    ((_, _, answered),) = await results(batches, plain)
    assert answered == {"type": "succeeded", "message": {"type": "message"}}
    assert (await batches.get("acc", lost.id)).errored == 1


@pytest.mark.parametrize(
    ("failure", "keys"),
    [
        (UpstreamOverloaded("busy"), ["0", "1"]),
        (RateLimited("slower", retry_after_s=0.1), ["0", "1"]),
        (AnswerLost("interrupted"), ["0", "1"]),
        # The same try is still made: it must not be made twice.
        (RequestRunning("still runs"), ["0", "0"]),
    ],
)
async def test_what_may_pass_is_tried_again(
    tasks_database: Database, batches: Batches, queue: BatchQueue, failure: MoaError, keys: list[str]
) -> None:
    """A new try has a new key, an interrupted one its own."""
    batch = await created(batches)
    answers = Answers(failure)
    await worked(tasks_database, queue, answers)
    assert [key.rpartition("-")[2] for key in answers.keys] == keys
    assert (await batches.get("acc", batch.id)).succeeded == 1


async def test_tries_end(tasks_database: Database, batches: Batches, queue: BatchQueue) -> None:
    """What fails again and again is the request's result; limits are waited out as long as the batch lasts."""
    batch = await created(batches)
    answers = Answers(*[UpstreamOverloaded("busy")] * 20)
    await worked(tasks_database, queue, answers)
    assert len(answers.keys) == TRIES
    ((_, _, result),) = await results(batches, batch)
    assert result["error"]["error"]["type"] == "overloaded_error"
    batch = await created(batches)
    await worked(tasks_database, queue, Answers(*[RateLimited("slower")] * (TRIES + 3)))
    assert (await batches.get("acc", batch.id)).succeeded == 1


async def test_a_vanished_workers_request_is_taken_up_by_the_same_try(
    tasks_database: Database, batches: Batches, queue: BatchQueue
) -> None:
    """After its lease; what the first worker says then counts no more."""
    batch = await created(batches)
    (first,) = await queue.claim(5)
    assert first.sent_headers == [("moa-tags", "nightly")]
    assert not await queue.claim(5)
    async with tasks_database.transaction() as link:
        await link.execute("update tasks.message_batch_requests set leased_until = now() - interval '1 second'")
    await queue.sweep()
    (second,) = await queue.claim(5)
    assert second.idempotency_key == first.idempotency_key
    assert await queue.renew([first]) == set()
    assert await queue.renew([second]) == {(batch.id, 0)}
    assert not await queue.end(first, SUCCEEDED, MESSAGE)
    assert await queue.end(second, SUCCEEDED, MESSAGE)
    assert (await batches.get("acc", batch.id)).succeeded == 1


async def test_accounts_take_turns(batches: Batches, queue: BatchQueue) -> None:
    """Each has as many answered at once as one may, and a long batch of one keeps nobody waiting."""
    await created(batches, 50, "greedy")
    await created(batches, 2, "modest")
    assert [claimed.account_id for claimed in await queue.claim(2)].count("modest") == 1
    rest = [claimed.account_id for claimed in await queue.claim(50)]
    assert sorted(rest) == ["greedy", "modest"]


async def test_a_cancelled_batch_begins_nothing_more(
    tasks_database: Database, batches: Batches, queue: BatchQueue
) -> None:
    """What is being answered ends, the rest is canceled; a request that comes back is canceled too."""
    batch = await created(batches, 4)
    running, stopped = await queue.claim(2)
    cancelled = await batches.cancel("acc", batch.id)
    assert (cancelled.status, cancelled.canceled, cancelled.processing) == ("canceling", 2, 2)
    assert (await batches.cancel("acc", batch.id)) == cancelled
    await queue.end(running, SUCCEEDED, MESSAGE)
    await queue.put_back(stopped, pause_s=0, counted=True)
    await queue.sweep()
    ended = await batches.get("acc", batch.id)
    assert (ended.status, ended.succeeded, ended.canceled) == ("ended", 1, 3)
    assert (await batches.cancel("acc", batch.id)).status == "ended"


async def test_a_batch_expires(tasks_database: Database, batches: Batches, queue: BatchQueue) -> None:
    """After 24 hours nothing more is begun, and what was answered is kept."""
    batch = await created(batches, 3)
    done, late = await queue.claim(2)
    await queue.end(done, SUCCEEDED, MESSAGE)
    await passed(tasks_database, 23)
    await queue.sweep()
    assert (await batches.get("acc", batch.id)).expired == 0
    await passed(tasks_database, 2)
    await queue.sweep()
    assert (await batches.get("acc", batch.id)).expired == 1
    await queue.end(late, SUCCEEDED, MESSAGE)
    ended = await batches.get("acc", batch.id)
    assert (ended.status, ended.succeeded, ended.expired) == ("ended", 2, 1)
    assert [state for _, state, _ in await results(batches, batch)].count(6) == 1


async def test_others_batches_are_not_there(batches: Batches) -> None:
    """An unknown id and another account's are alike, whatever is asked."""
    batch = await created(batches)
    for account, batch_id in (("other", batch.id), ("acc", "msgbatch_none")):
        for ask in (batches.get, batches.cancel, batches.delete):
            with pytest.raises(NotFound, match="no such batch"):
                await ask(account, batch_id)


async def test_pages(batches: Batches) -> None:
    """The newest first; behind one, and before one, with word of more beyond."""
    ids = [(await created(batches)).id for _ in range(4)][::-1]
    await created(batches, account="other")

    async def page(**where: Any) -> tuple[list[str], bool]:
        found, more = await batches.page("acc", **{"after": "", "before": "", "limit": 2, **where})
        return [batch.id for batch in found], more

    assert await page() == (ids[:2], True)
    assert await page(after=ids[1]) == (ids[2:], False)
    assert await page(before=ids[3]) == (ids[1:3], True)
    assert await page(before=ids[1]) == (ids[:1], False)
    with pytest.raises(NotFound):
        await page(after="msgbatch_none")


async def test_what_an_account_may_have(
    tasks_database: Database, batches: Batches, queue: BatchQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many open batches, and so many bytes: a batch that would be beyond is refused, one that is goes no further."""
    first = await created(batches)
    async with tasks_database.transaction() as link:
        await link.execute(
            "insert into tasks.message_batches (id, account_id, key_id, expires_at, size_bytes, total)"
            " select 'b' || n, 'acc', 'k', now() + interval '1 day', 0, 1 from generate_series(2, %s) n",
            (MOST_OPEN,),
        )
    with pytest.raises(QueueFull):
        await created(batches)
    await created(batches, account="other")
    async with tasks_database.transaction() as link:
        await link.execute("delete from tasks.message_batches where id like 'b%'")
    monkeypatch.setattr(kept, "MOST_BYTES", 10)
    with pytest.raises(Conflict):
        await created(batches)
    async with tasks_database.transaction() as link:
        await link.execute("update tasks.message_batches set size_bytes = 1 << 30 where id = %s", (first.id,))
    answers = Answers()
    await worked(tasks_database, queue, answers)
    ((_, _, result),) = await results(batches, first)
    assert "512 MB" in result["error"]["error"]["message"]
    assert len(answers.keys) == 1  # the other account's


async def test_what_has_ended_is_deleted(tasks_database: Database, batches: Batches, queue: BatchQueue) -> None:
    """By its owner, once it has ended; by itself, when it was kept long enough."""
    first, second = await created(batches), await created(batches)
    with pytest.raises(InvalidField, match="cancel it first"):
        await batches.delete("acc", first.id)
    await worked(tasks_database, queue, Answers())
    await batches.delete("acc", first.id)
    with pytest.raises(NotFound):
        await batches.get("acc", first.id)
    assert await queue.clean(3600) == 0
    assert await queue.clean(0) == 1
    with pytest.raises(NotFound):
        await batches.get("acc", second.id)


async def test_a_stopped_worker_puts_back_what_it_had(
    tasks_database: Database, batches: Batches, queue: BatchQueue
) -> None:
    """At once, by the same try."""
    await created(batches)
    answers = Answers(asyncio.Event())
    worker = BatchWorker(queue, answers, rendered, Notices(), room=1, keep_s=3600)
    doing = asyncio.create_task(worker.run())
    async with asyncio.timeout(90):
        while not answers.keys:
            await asyncio.sleep(0)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    (again,) = await queue.claim(1)
    assert again.idempotency_key == answers.keys[0]


REFUSED: dict[str, tuple[Any, str]] = {
    "no requests": ({"requests": []}, "requests"),
    "none at all": ({}, "requests"),
    "an id of other letters": ({"requests": [{"custom_id": "a b", "params": {}}]}, "requests"),
    "one id twice": ({"requests": [{"custom_id": "a", "params": {}}] * 2}, "requests.1.custom_id"),
    "a body that is none": ({"requests": [{"custom_id": "a", "params": 3}]}, "requests.0.params"),
    "a stream": ({"requests": [{"custom_id": "a", "params": {"stream": True}}]}, "requests.0.params.stream"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_creation_is_refused(name: str) -> None:
    """By its field, with nothing created."""
    body, where = REFUSED[name]
    with pytest.raises(InvalidField) as caught:
        bodies.read(json.dumps(body).encode())
    assert caught.value.param.startswith(where)


def test_bodies_are_kept_as_they_came() -> None:
    """Each to the letter; what is no JSON is refused."""
    params = b'{ "model": "m",  "n": 1e3 }'
    assert bodies.read(b'{"requests": [{"custom_id": "a", "params": %b}]}' % params) == [("a", params)]
    with pytest.raises(Malformed):
        bodies.read(b"{")
