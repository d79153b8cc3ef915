"""Batches at providers' batch APIs: over the real database, the real text service and strict fakes of two providers.

Who prepares requests and makes messages, and who holds quota, is played.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from moa.batch.v1.batched_message_service_pb2 import PrepareMessageResponse
from moa.quota.v1 import quota_pb2
from moa.text.v1.text_pb2 import Message, Part, Role, TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.content_sealing import ContentSealer
from services.common.dialects import ANTHROPIC
from services.common.errors import ContentPolicy, MoaError, QuotaExhausted, Unavailable
from services.common.rpc.client import channel
from services.quota_client.amounts import Amount, ReservationId
from services.tasks.adapters.batch_content import BatchContent
from services.tasks.adapters.batch_quota import BatchQuota
from services.tasks.adapters.batches import Batches
from services.tasks.adapters.database import Database, Notices
from services.tasks.adapters.provider_batches import ProviderBatches
from services.tasks.adapters.provider_client import ProviderClient
from services.tasks.domain.batch import Batch
from services.tasks.domain.provider_batch import Asked, Member
from services.tasks.worker.provider_batches import ProviderBatchWorker
from tests.emulators import anthropic_requests
from tests.emulators.anthropic import AnthropicEmulator
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.gemini_batches import Batch as GeminiBatch
from tests.emulators.openai import OpenAIEmulator
from tests.text.harness import TOKEN, Row, text_service

CONTENT = BatchContent(ContentSealer([b"a secret of the operator's"]))
NEED = Amount(tokens=100, nano_usd=5_000, requests=1)
VENDORS = {
    "anthropic": (AnthropicEmulator, "", anthropic_requests.OPUS, anthropic_requests.KEY),
    "openai": (OpenAIEmulator, "/v1", "gpt-4o-mini", "sk-good"),
    "gemini": (GeminiEmulator, "/v1beta", "gemini-2.5-flash", "AIza-good"),
}
_AWAY = {"type": "api_error", "message": "internal"}
_REFUSED = {"type": "invalid_request_error", "message": "prompt is too odd"}
FAILED = {
    "anthropic": (
        {"type": "errored", "error": {"type": "error", "error": _REFUSED}},
        {"type": "expired"},
        {"type": "errored", "error": {"type": "error", "error": _AWAY}},
    ),
    "openai": (
        {"response": {"status_code": 400, "body": {"error": {**_REFUSED, "code": None}}}, "error": None},
        {"response": None, "error": {"code": "batch_expired", "message": "late"}},
        {"response": {"status_code": 500, "body": {"error": {**_AWAY, "code": None}}}, "error": None},
    ),
    "gemini": (
        {"error": {"code": 3, "message": "prompt is too odd"}},
        {"error": {"code": 1, "message": "late"}},
        {"error": {"code": 13, "message": "internal"}},
    ),
}
"""Results of a request that was refused, of one that its provider gave up, and of one that failed by the provider."""


ANY = pytest.mark.parametrize("bench", ["openai"], indirect=True)
"""Of what no provider has a part in."""


@dataclass
class Router:
    """Plays the router: a body's `text` is its prompt; one that is `alone` has no batch API."""

    refuses: MoaError | None = None
    """Why no message can be made of an answer."""
    rendered: list[str] = field(default_factory=list)

    async def prepare(self, asked: Asked) -> PrepareMessageResponse:
        text = json.loads(asked.body)["text"]
        if text == "alone":
            return PrepareMessageResponse()
        request = GenerateTextRequest(model="m", provider="p", max_tokens=64)
        request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text=text)]))
        return PrepareMessageResponse(provider="p", model="m", request=request, need=NEED.message(), tags=["t"])

    async def render(self, member: Member, events: list[TextEvent]) -> bytes:
        if self.refuses is not None:
            raise self.refuses
        assert events[-1].HasField("finished")
        assert not member.handed.request.messages, "what is kept for the answer has no prompt"
        text = json.loads(member.asked.body)["text"]
        self.rendered.append(text)
        said = "".join(event.text.text for event in events)
        return json.dumps({"asked": text, "said": said}).encode()


class Paying(BatchQuota):
    """Plays who holds quota; what an answer costs is real."""

    def __init__(self, catalogue: Any) -> None:
        self._catalogue, self._dialect = catalogue, "anthropic"
        self.room = 10**6
        self.held: list[int] = []
        self.fails: MoaError | None = None

    async def hold_requests(
        self, *, key_id: str, provider: str, model: str, needs: Sequence[Amount], tags: Sequence[str], request_id: str
    ) -> tuple[str, list[str]]:
        if self.fails is not None:
            raise self.fails
        if len(needs) > self.room:
            raise QuotaExhausted("no more today")
        self.room -= len(needs)
        self.held.append(len(needs))
        lease = f"lease{len(self.held)}"
        return lease, [str(ReservationId(lease, f"{number:x}", each)) for number, each in enumerate(needs, 1)]


@dataclass
class Bench:
    """All of it."""

    database: Database
    batches: Batches
    kept: ProviderBatches
    vendor: str
    upstream: Any
    router: Router
    paying: Paying
    client: ProviderClient

    def worker(self, *, hands_over: bool = True) -> ProviderBatchWorker:
        """Return a worker of another process."""
        return ProviderBatchWorker(
            self.kept,
            self.router,
            self.client,
            self.paying,
            Notices(),
            lambda error, request_id: ANTHROPIC.render(error, request_id=request_id),
            hands_over=hands_over,
        )

    async def created(self, *texts: str) -> Batch:
        requests = [(f"r{n}", json.dumps({"text": text}).encode()) for n, text in enumerate(texts)]
        return await self.batches.create("acc", "key", requests, [], may_be_handed=True)

    async def tended(self, worker: ProviderBatchWorker) -> None:
        """Look at all packs, whenever it would be time."""
        await self.run("update tasks.provider_batches set next_at = now(), leased_until = null where state < 3")
        await worker.tend()

    async def run(self, statement: Any, *given: object) -> list[Any]:
        async with self.database.transaction() as link:
            found = await link.execute(statement, given)
            return await found.fetchall() if found.description else []

    async def results(self, batch: Batch) -> dict[str, tuple[int, Any]]:
        rows = [row async for page in self.batches.results(batch.id) for row in page]
        return {custom_id: (state, result and json.loads(result)) for custom_id, state, result in rows}

    async def states(self) -> Counter[int]:
        return Counter(state for (state,) in await self.run("select state from tasks.message_batch_requests"))

    async def owed(self) -> tuple[list[quota_pb2.Settlement], list[quota_pb2.LeaseReturn]]:
        rows = await self.run("select message, settles from tasks.quota_outbox order by task_id")
        settled = [quota_pb2.Settlement.FromString(message) for message, settles in rows if settles]
        return settled, [quota_pb2.LeaseReturn.FromString(message) for message, settles in rows if not settles]


@pytest.fixture(params=VENDORS)
async def bench(request: pytest.FixtureRequest, tasks_database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    emulator, path, upstream_model, key = VENDORS[request.param]
    async with emulator() as upstream:
        provider: Row = {
            "id": "p",
            "adapter": request.param,
            "makes": "text",
            "base_url": upstream.url + path,
            "credentials": {"api_key": "KEY"},
            "batch_price_factor": 0.5,
        }
        model: Row = {"id": "m", "provider": "p", "upstream": upstream_model, "prices": {"input": 3, "output": 15}}
        async with text_service(tmp_path, [provider], [model], {"KEY": key}) as service:
            kept = ProviderBatches(tasks_database, CONTENT, lease_s=60)
            async with channel(service.address) as text:
                yield Bench(
                    tasks_database,
                    Batches(tasks_database, CONTENT),
                    kept,
                    request.param,
                    upstream,
                    Router(),
                    Paying(service.watched),
                    ProviderClient(text, service_token=TOKEN),
                )


@ANY
async def test_where_nobody_serves_batch_apis_each_request_is_asked_for_alone(bench: Bench) -> None:
    """A worker that hands nothing over leaves all requests to the ordinary path, and holds no quota for them."""
    await bench.created("one", "two")
    while await bench.worker(hands_over=False).decide():
        pass
    assert await bench.states() == {1: 2}
    assert bench.paying.held == []


async def test_each_request_has_its_own_answer_and_is_charged_once_at_the_batchs_price(bench: Bench) -> None:
    """Answers come in any order and are told apart by their ids; one without a batch API is asked for as any other."""
    batch = await bench.created("one", "alone", "two")
    worker = bench.worker()
    assert await worker.decide()
    assert await bench.states() == {7: 2, 1: 1}
    assert bench.paying.held == [2]
    await bench.tended(worker)
    found = await bench.results(batch)
    said = "Hello 안녕 🌍!"
    assert found["r0"] == (3, {"type": "succeeded", "message": {"asked": "one", "said": said}})
    assert found["r2"][1]["message"]["asked"] == "two"
    assert (await bench.batches.get("acc", batch.id)).processing == 1
    settled, returned = await bench.owed()
    # 7 of prompt and 5 of completion, at half of $3 and $15 a million.
    cost = (7 * 3_000 + 5 * 15_000) // 2
    assert [each.charged.nano_usd for each in settled] == [cost, cost]
    assert [(each.charged.tokens, each.charged.requests, list(each.tags)) for each in settled] == [(12, 1, ["t"])] * 2
    assert len({each.reservation_id for each in settled}) == 2
    assert [each.amount.tokens for each in returned] == [88, 88]
    assert await bench.run("select state from tasks.provider_batches") == [(3,)]
    await bench.tended(worker)
    assert len((await bench.owed())[0]) == 2


async def test_a_batch_whose_answer_was_lost_is_found_and_not_made_twice(bench: Bench) -> None:
    """A worker that died behind the creation leaves a pack; another finds it at the provider, by its own mark."""
    batch = await bench.created("one", "two")
    bench.upstream.batches.lost_answer = True
    bench.upstream.batches.ends_at_once = False
    await bench.worker().decide()
    assert await bench.run("select state, provider_batch_id from tasks.provider_batches") == [(1, None)]
    other = bench.worker()
    await bench.tended(other)
    for made in bench.upstream.batches.made:
        bench.upstream.batches.end(made)
    await bench.tended(other)
    await bench.tended(other)
    assert len(bench.upstream.batches.made) == 1
    assert {state for state, _ in (await bench.results(batch)).values()} == {3}
    assert len((await bench.owed())[0]) == 2
    assert bench.paying.held == [2]


async def test_a_batch_that_was_never_made_is_made_by_who_takes_it_up(bench: Bench, monkeypatch: Any) -> None:
    """A worker that died before it asked leaves the same pack: nothing is found, and it is handed over once."""
    batch = await bench.created("one", "two")

    async def died(*_: object) -> tuple[str, set[str]]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bench.client, "create", died)
        with pytest.raises(KeyboardInterrupt):
            await bench.worker().decide()
    assert bench.upstream.batches.made == []
    other = bench.worker()
    await bench.tended(other)
    await bench.tended(other)
    assert len(bench.upstream.batches.made) == 1
    assert len(await bench.results(batch)) == 2
    assert len((await bench.owed())[0]) == 2


async def test_what_is_cancelled_at_the_provider_is_not_charged(bench: Bench) -> None:
    """The provider is asked to end it; what it had answered is charged, the rest is canceled and given back."""
    batch = await bench.created("one", "two")
    bench.upstream.batches.ends_at_once = False
    worker = bench.worker()
    await worker.decide()
    await bench.batches.cancel("acc", batch.id)
    await bench.tended(worker)
    await bench.tended(worker)
    assert {state for state, _ in (await bench.results(batch)).values()} == {5}
    assert (await bench.batches.get("acc", batch.id)).status == "ended"
    settled, returned = await bench.owed()
    assert settled == []
    assert [Amount.read(each.amount) for each in returned] == [NEED, NEED]


async def test_a_request_that_failed_is_told_and_not_charged(bench: Bench) -> None:
    """Each error is its own request's; what expired has no result."""
    bench.upstream.batches.played = dict(enumerate(FAILED[bench.vendor][:2]))
    batch = await bench.created("one", "two", "three")
    worker = bench.worker()
    await worker.decide()
    await bench.tended(worker)
    found = await bench.results(batch)
    assert [found[name][0] for name in ("r0", "r1", "r2")] == [4, 6, 3]
    assert found["r0"][1]["error"]["error"]["type"] == "invalid_request_error"
    assert found["r1"][1] is None
    settled, returned = await bench.owed()
    assert len(settled) == 1
    assert sorted(each.amount.tokens for each in returned) == [88, 100, 100]


async def test_a_failure_that_may_pass_is_handed_over_once_more(bench: Bench) -> None:
    """The provider's own failure costs nothing, and the next batch may answer; a second one is the result."""
    bench.upstream.batches.played = {0: FAILED[bench.vendor][2]}
    batch = await bench.created("one", "two")
    worker = bench.worker()
    await worker.decide()
    await bench.tended(worker)
    assert await bench.states() == {0: 1, 3: 1}
    await bench.run("update tasks.message_batches set deciding_until = null")
    assert await worker.decide()
    await bench.tended(worker)
    found = await bench.results(batch)
    assert [found[name][0] for name in ("r0", "r1")] == [4, 3]
    assert found["r0"][1]["error"]["error"]["type"] == "api_error"
    assert bench.paying.held == [2, 1]
    settled, returned = await bench.owed()
    assert len(settled) == 1
    assert sorted(each.amount.tokens for each in returned) == [88, 100, 100]


@ANY
async def test_an_answer_that_no_caller_gets_is_charged_all_the_same(bench: Bench) -> None:
    """A policy that refuses it, or anything else that does not pass, makes it an error; the provider was paid."""
    bench.router.refuses = ContentPolicy("not this")
    batch = await bench.created("one")
    worker = bench.worker()
    await worker.decide()
    await bench.tended(worker)
    ((state, result),) = (await bench.results(batch)).values()
    assert (state, result["error"]["error"]["message"]) == (4, "not this")
    assert len((await bench.owed())[0]) == 1


@ANY
async def test_results_are_taken_up_where_they_were_left(bench: Bench) -> None:
    """What could not be made a message now is made one later; what was kept is not kept or charged again."""
    batch = await bench.created("one", "two")
    worker = bench.worker()
    await worker.decide()
    bench.router.refuses = Unavailable("the router is away")
    await bench.tended(worker)
    assert await bench.states() == {7: 2}
    assert await bench.owed() == ([], [])
    bench.router.refuses = None
    (pack,) = await bench.run("select id from tasks.provider_batches")
    await bench.tended(worker)
    await bench.run("update tasks.provider_batches set state = 2 where id = %s", pack[0])
    await bench.tended(bench.worker())
    assert sorted(bench.router.rendered) == ["one", "two"]
    assert len(await bench.results(batch)) == 2
    assert len((await bench.owed())[0]) == 2


async def test_what_a_provider_refuses_is_asked_for_as_any_other(bench: Bench) -> None:
    """A refused batch costs nothing: its requests wait for the ordinary way, and their quota is given back."""
    bench.upstream.batches.refuses = True
    await bench.created("one", "two")
    await bench.worker().decide()
    assert await bench.states() == {1: 2}
    settled, returned = await bench.owed()
    assert settled == []
    assert len(returned) == 2
    assert await bench.run("select state from tasks.provider_batches") == [(3,)]


@ANY
async def test_quota_for_some_of_a_batch_pays_for_these(bench: Bench) -> None:
    """What there is no quota for is refused with that error, as alone; a quota service that is away refuses nobody."""
    batch = await bench.created("one", "two", "three")
    worker = bench.worker()
    bench.paying.fails = Unavailable("away")
    assert await worker.decide()
    assert not await worker.decide(), "it is looked at again after a while"
    assert await bench.states() == {0: 3}
    bench.paying.fails, bench.paying.room = None, 2
    await bench.run("update tasks.message_batches set deciding_until = null")
    await worker.decide()
    await bench.tended(worker)
    found = await bench.results(batch)
    assert Counter(state for state, _ in found.values()) == {3: 2, 4: 1}
    (refused,) = [result for state, result in found.values() if state == 4]
    assert refused["error"]["error"]["message"] == "no more today"


async def test_the_provider_hears_nothing_of_an_accounts_names(bench: Bench) -> None:
    """Requests are called by this gateway's own ids, so that two accounts' `r0` are two, and none tells whose it is."""
    await bench.created("one")
    await bench.created("one")
    worker = bench.worker()
    while await worker.decide():
        pass
    names = [name for made in bench.upstream.batches.made for name in _names(made)]
    assert len(set(names)) == len(names) == 2
    assert all(re.fullmatch("mp[0-9a-f]{24}-0", name) for name in names)


def _names(made: Any) -> list[str]:
    if isinstance(made, GeminiBatch):
        assert re.fullmatch("mp[0-9a-f]{24}", made.display_name)
        return [(each.metadata or {})["key"] for each in made.requests]
    return [line["custom_id"] for line in (made.lines if hasattr(made, "lines") else made.requests)]
