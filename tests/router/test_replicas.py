"""Which of several inference processes is asked: the one that has the model in memory, and the least to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import msgspec
import pytest

from inference.engine import Standing
from inference.packages import Packages
from inference.recent import Rates
from inference.registry import Registry
from inference.states import ModelServicer
from moa.inference.v1 import model_service_pb2_grpc
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.catalogue import Catalogue, Load, Model, Provider, Watched
from services.common.rpc.client import channel
from services.common.rpc.replicas import LOAD_S, Replicas
from services.common.rpc.server import Server
from services.router.adapters.backends import Backends
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.text import TEXT, TextCall
from tests.router.moody import TOKEN, Lender, Moody, Nowhere, drained

MODEL = Model(id="m", provider="p", load=Load(source="m"), default_max_tokens=8)
CATALOGUE = Catalogue([Provider(id="p", adapter="inference", makes="text")], [MODEL], frozenset({"p"}))


class Engine:
    """A loaded model with as much to do as a test says."""

    size_bytes = 1

    def __init__(self, waiting: list[float]) -> None:
        self._waiting = waiting

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def standing(self) -> Standing:
        return Standing(0, 0, sum(self._waiting), 0, Rates(0.0, 0.0, 0.0), 0)


class Process:
    """An inference process, whose answers are played."""

    def __init__(self, zone: str = "") -> None:
        self.texts = Moody()
        self.waiting: list[float] = []
        """Seconds of work that wait for its model."""
        self.beside: list[float] = []
        """Seconds of work that wait for another model."""
        self.registry = Registry(lambda model, report: Engine(self.waiting if model is MODEL else self.beside))
        self.server = Server(service_token=TOKEN)
        text_service_pb2_grpc.add_TextServiceServicer_to_server(self.texts, self.server.grpc)
        states = ModelServicer(cast(Watched, _Now()), self.registry, cast(Packages, None), zone=zone)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(states, self.server.grpc)

    async def start(self) -> None:
        """Serve on a port of its own."""
        self.address = f"127.0.0.1:{await self.server.start('127.0.0.1:0')}"


class _Now:
    now = CATALOGUE


class Pool:
    """Two processes behind one name, and a router's core that asks them."""

    def __init__(self, processes: list[Process]) -> None:
        self.processes = processes
        self.named = tuple(each.address for each in processes)
        self.time = 0.0
        self.replicas = self.seen_from("")
        self.channel = channel(",".join(self.named))
        self.backends = Backends(
            {"inference": self.channel},
            service_token=TOKEN,
            catalogue=lambda: CATALOGUE,
            replicas={"inference": self.replicas},
        )
        self.operations = Operations(
            catalogue=lambda: CATALOGUE, admission=Lender(), backends=self.backends, inputs=Nowhere()
        )

    def seen_from(self, zone: str) -> Replicas:
        """Return the processes as one who runs in a zone takes them."""
        return Replicas(
            "pool:1", "inference", service_token=TOKEN, zone=zone, clock=lambda: self.time, resolve=self._resolved
        )

    async def _resolved(self, host: str, port: int) -> tuple[str, ...]:
        return self.named

    async def begun(self, mood: str) -> Any:
        """Begin an answer."""
        request = text_service_pb2.GenerateTextRequest(model="m", stream=True)
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=mood)
        return await self.operations.begin(TextCall(request), Caller(key="k", request_id="rid"))

    async def shares(self, count: int) -> list[int]:
        """Ask for so many answers, one after another; return how many each process gave."""
        before = [each.texts.streams for each in self.processes]
        for _ in range(count):
            await drained(await self.begun("fine"))
        return [each.texts.streams - was for each, was in zip(self.processes, before, strict=True)]


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """Yield a pool whose first process has the model in memory and whose second has just begun."""
    processes = [Process("a"), Process("b")]
    for each in processes:
        await each.start()
    await processes[0].registry.warm(MODEL)
    made = Pool(processes)
    await made.replicas.look()
    yield made
    await made.backends.aclose()
    await made.channel.close()
    for each in processes:
        await each.server.stop(0)
        await each.registry.close()


async def test_a_cold_process_is_not_asked_while_a_warm_one_is_idle(pool: Pool) -> None:
    """Answers and counts of tokens come from the process that has the model, until the other has it too."""
    assert await pool.shares(6) == [6, 0]
    counted = text_service_pb2.CountTokensRequest(model="m")
    counted.messages.add(role=text_pb2.ROLE_USER).parts.add(text="hi")
    for _ in range(2):
        await pool.operations.count_tokens(TEXT, counted, Caller(key="k", request_id="counts"))
    assert [each.texts.seen.get("x-request-id") for each in pool.processes] == ["counts", None]
    warm = pool.replicas.choose("text")
    assert warm is not None
    assert warm.address == pool.named[0], "who leaves the model to the process asks one that has any of the kind"
    await pool.processes[1].registry.warm(MODEL)
    await pool.replicas.look()
    assert await pool.shares(6) == [3, 3]


async def test_a_cold_process_is_asked_once_loading_costs_less_than_waiting(pool: Pool) -> None:
    """Else a pool that was enlarged would leave the work to those who have it; then the least busy is asked."""
    first, second = pool.processes
    first.waiting.append(LOAD_S - 5)
    await pool.replicas.look()
    assert await pool.shares(1) == [1, 0]
    first.waiting.append(10)
    await pool.replicas.look()
    assert await pool.shares(1) == [0, 1]
    await second.registry.warm(MODEL)
    await pool.replicas.look()
    assert await pool.shares(6) == [0, 6]


async def test_work_of_other_models_makes_no_call_wait_for_a_model_to_be_loaded(pool: Pool) -> None:
    """Each model has a queue of its own; of two that have the model the one with less beside it is asked."""
    first, second = pool.processes
    await first.registry.warm(msgspec.structs.replace(MODEL, id="other"))
    first.beside.append(2 * LOAD_S)
    await pool.replicas.look()
    assert await pool.shares(4) == [4, 0]
    await second.registry.warm(MODEL)
    await pool.replicas.look()
    assert await pool.shares(2) == [0, 2]


async def test_of_processes_with_alike_to_do_one_of_the_own_zone_is_asked(pool: Pool) -> None:
    """Whoever runs in a zone asks there, until more waits there than elsewhere, or nobody there tells what it does."""
    far, near = pool.processes
    await near.registry.warm(MODEL)
    replicas = pool.seen_from("b")

    async def asked(process: Process) -> None:
        await replicas.look()
        chosen = {replica.address for _ in range(4) if (replica := replicas.choose(MODEL.full_id))}
        assert chosen == {process.address}

    await asked(near)
    near.waiting.append(1.0)
    await asked(far)
    far.waiting.append(1.0)
    await asked(near)
    await near.server.stop(0)
    await asked(far)
    await replicas.aclose()


async def test_calls_that_the_processes_have_not_told_of_count(pool: Pool) -> None:
    """Many calls that begin within a second are parted, though each would find the same process the least busy."""
    await pool.processes[1].registry.warm(MODEL)
    await pool.replicas.look()
    await pool.replicas.look()
    streams = [await pool.begun("hang") for _ in range(6)]
    assert [each.texts.streams for each in pool.processes] == [3, 3]
    for each in streams:
        async with each:
            pass


async def test_a_process_that_stands_still_is_not_asked(pool: Pool) -> None:
    """One that did not say for five seconds what it does is passed over, however warm it is, while another does."""
    pool.time = 5.0
    warm = pool.replicas.choose(MODEL.full_id)
    assert warm is not None, "where nobody says anything, what they said counts"
    assert warm.address == pool.named[0]
    await pool.processes[0].server.stop(0)
    await pool.replicas.look()
    assert await pool.shares(2) == [0, 2]


async def test_a_process_that_was_started_again_is_not_taken_for_what_it_was(pool: Pool) -> None:
    """Its successor at the same address has nothing in memory, and is not asked for what it had until it says so."""
    was, other = pool.processes
    await other.registry.warm(MODEL)
    await pool.replicas.look()
    both = [pool.replicas.choose(MODEL.full_id) for _ in range(2)]
    (link,) = [each.channel for each in both if each is not None and each.address == was.address]
    ready = grpc.ChannelConnectivity.READY
    lost = asyncio.create_task(link.wait_for_state_change(ready))
    await was.server.stop(0)
    await was.registry.close()
    await lost
    successor = pool.processes[0] = Process()
    await successor.server.start(was.address)
    while (now := link.get_state(try_to_connect=True)) is not ready:
        await link.wait_for_state_change(now)
    assert await pool.shares(4) == [0, 4]
    await pool.replicas.look()
    assert await pool.shares(4) == [0, 4]
    await successor.registry.warm(MODEL)
    await pool.replicas.look()
    assert await pool.shares(4) == [2, 2]


async def test_what_runs_in_a_process_whose_name_is_gone_ends_there(pool: Pool) -> None:
    """A pod that was asked to stop leaves the name first, and ends what it began; the rest goes on without it."""
    stream = await pool.begun("hang")
    pool.named, pool.time = pool.named[1:], 5.0
    await pool.replicas.look()
    async with stream:
        await stream.next()
        assert not pool.processes[0].texts.cancelled.is_set()
    await asyncio.wait_for(pool.processes[0].texts.cancelled.wait(), 30)
    assert pool.replicas.choose(MODEL.full_id) is None, "one alone is asked by the channel that waits for it"
