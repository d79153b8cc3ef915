"""Calls to whoever really answers, against a real gRPC server that misbehaves on request."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from moa.common.v1 import error_pb2
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.catalogue import Catalogue, Provider, Timeouts
from services.common.errors import ContextTooLong, Internal, Unavailable, UpstreamTimeout
from services.common.rpc import server
from services.common.rpc.client import channel
from services.common.rpc.local import LocalServer
from services.common.rpc.session.channel import SessionChannel
from services.router.adapters import backends
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.text import TEXT
from tests.router.moody import MODEL, TOKEN, Lender, Moody, Nowhere, Rig, drained, text

PATIENT = Timeouts(connect_s=30.0, first_token_s=60.0, idle_s=60.0)
"""However busy the machine, who answers is not given up."""
over_grpc = pytest.mark.parametrize("rig", ["grpc"], indirect=True)
"""For what this side's clock ends, after seconds: it cancels, and `tests/common/test_local.py` has that both ways."""


@pytest.fixture(params=["grpc", "local", "session"])
async def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """Yield a router's core in front of a service over gRPC, and of one in this process."""
    monkeypatch.setattr(backends, "GRACE_S", 0.0)
    moody, lender = Moody(), Lender()
    running: Any = LocalServer(service_token=TOKEN) if request.param == "local" else server.Server(service_token=TOKEN)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(moody, running.grpc)
    port = await running.start("127.0.0.1:0")
    known: list[Catalogue] = []

    def waiting(timeouts: Timeouts) -> None:
        provider = Provider(id="p", adapter="x", makes="text", timeouts=timeouts)
        known[:] = [Catalogue([provider], [MODEL], frozenset({"p"}))]

    waiting(PATIENT)
    async with AsyncExitStack() as opened:
        local = request.param == "local"
        to_text = running.channel if local else await opened.enter_async_context(channel(f"127.0.0.1:{port}"))
        if request.param == "session":
            to_text = SessionChannel(to_text, service_token=TOKEN)
            opened.push_async_callback(to_text.close)
            await to_text.look()
        calls = backends.Backends({"text": to_text}, service_token=TOKEN, catalogue=lambda: known[0])
        operations = Operations(catalogue=lambda: known[0], admission=lender, backends=calls, inputs=Nowhere())
        yield Rig(moody, operations, lender, running, calls, waiting)
    await running.stop(0)


async def test_an_answer_comes_whole_and_is_settled_by_its_usage(rig: Rig) -> None:
    """Identity travels as metadata, the bound fits the reservation, and the reported usage is booked."""
    events = await drained(await rig.ask("fine"))
    assert [e.WhichOneof("event") for e in events] == ["text", "finished"]
    assert rig.moody.seen["x-request-id"] == "rid-1"
    assert rig.moody.seen["x-moa-account"] == "acct"
    assert rig.moody.seen["x-moa-reservation"] == "resv"
    assert rig.moody.seen["x-moa-priority"] == "high"
    assert rig.moody.bound == 8
    assert rig.lender.ended == "1+1"


async def test_a_whole_answer_is_the_stream_drained(rig: Rig) -> None:
    """Without pieces the same events come in one message, by a unary call, and are settled the same."""
    answer = await rig.ask("fine", stream=False)
    events = await drained(answer)
    assert [e.WhichOneof("event") for e in events] == ["text", "finished"]
    assert rig.lender.ended == "1+1"


@pytest.mark.parametrize(("mood", "error"), [("long", ContextTooLong), ("bug", Internal), ("mute", UpstreamTimeout)])
async def test_a_whole_answer_that_fails_is_a_status(rig: Rig, mood: str, error: type[Exception]) -> None:
    """Failures of unary calls keep their reasons, and cost nothing."""
    if mood == "mute":
        rig.timeouts(Timeouts(connect_s=0.1, first_token_s=0.2, idle_s=0.2))
    with pytest.raises(error):
        await rig.ask(mood, stream=False)
    assert rig.lender.ended == ("voided" if mood == "mute" else "released")


async def test_an_early_failure_is_raised_with_its_reason_and_costs_nothing(rig: Rig) -> None:
    """A failure before the first event keeps its reason and field across the hop."""
    with pytest.raises(ContextTooLong) as caught:
        await rig.ask("long")
    assert caught.value.param == "messages"
    assert rig.lender.ended == "released"


async def test_a_bug_tells_nothing(rig: Rig) -> None:
    """An unknown exception of a service reaches the caller as an internal error without its text."""
    with pytest.raises(Internal) as caught:
        await rig.ask("bug")
    assert "secret" not in caught.value.message


@over_grpc
async def test_silence_amid_an_answer_is_bounded_by_itself(rig: Rig) -> None:
    """A model that may think for long before its first word is given up soon where it falls silent after it."""
    rig.timeouts(Timeouts(connect_s=30.0, first_token_s=3600.0, idle_s=0.2))
    async with asyncio.timeout(60):
        events = await drained(await rig.ask("hang"))
    assert events[-1].error.reason == error_pb2.REASON_UPSTREAM_TIMEOUT
    await asyncio.wait_for(rig.moody.cancelled.wait(), 60)


@over_grpc
async def test_a_mute_service_times_out_before_the_first_event(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """First-token silence becomes a timeout, the work behind it is cancelled, and what it may yet claim is void."""
    clock: Any = Clock()
    monkeypatch.setattr(backends, "asyncio", SimpleNamespace(**vars(asyncio) | {"get_running_loop": lambda: clock}))
    asking = asyncio.create_task(rig.ask("mute"))
    await asyncio.wait_for(rig.moody.asked.wait(), 60)
    clock.pass_to(PATIENT.connect_s + PATIENT.first_token_s - 1)
    assert not clock.fired
    clock.pass_to(PATIENT.connect_s + PATIENT.first_token_s)
    with pytest.raises(UpstreamTimeout):
        await asking
    await asyncio.wait_for(rig.moody.cancelled.wait(), 30)
    assert rig.lender.ended == "voided"


@over_grpc
async def test_silence_between_events_ends_in_band(rig: Rig) -> None:
    """Idle silence becomes the stream's one error event; what was delivered is charged."""
    rig.timeouts(Timeouts(connect_s=30.0, first_token_s=60.0, idle_s=0.2))
    events = await drained(await rig.ask("hang"))
    assert [e.WhichOneof("event") for e in events] == ["text", "error"]
    await asyncio.wait_for(rig.moody.cancelled.wait(), 30)
    assert rig.lender.ended.endswith("+1")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_router_that_stops_tells_those_who_wait(rig: Rig, stream: bool) -> None:
    """Before the first event by the status, amid an answer by its last event; nobody is asked again, nor anew."""
    waiting = asyncio.create_task(rig.ask("mute", stream=stream))
    answer = await rig.ask("hang")
    async with answer:
        await answer.next()
        while rig.calls.running != 2:
            await asyncio.sleep(0.01)
        rig.calls.end()
        message = await answer.next()
    assert message.events[-1].error.reason == error_pb2.REASON_UNAVAILABLE
    for asked in (waiting, rig.ask("fine", stream=stream)):
        with pytest.raises(Unavailable, match="shutting down"):
            await asked
    assert rig.calls.running == 0


async def test_a_stream_without_an_end_is_an_error(rig: Rig) -> None:
    """A service that stops without a last event never looks like success."""
    events = await drained(await rig.ask("stop"))
    assert [e.WhichOneof("event") for e in events] == ["text", "error"]


async def test_leaving_cancels_the_work(rig: Rig) -> None:
    """A caller that leaves mid-stream stops the service's handler."""
    answer = await rig.ask("hang")
    async with answer:
        await answer.next()
    await asyncio.wait_for(rig.moody.cancelled.wait(), 30)


@pytest.mark.parametrize(("max_tokens", "streams"), [(100, 0), (5000, 1)])
async def test_a_long_whole_answer_is_waited_for_by_a_stream(rig: Rig, max_tokens: int, streams: int) -> None:
    """So that messages without events tell that somebody works. They are no event, and begin nothing."""
    events = await drained(await rig.ask("lively", stream=False, max_tokens=max_tokens))
    assert [e.WhichOneof("event") for e in events] == ["text", "finished"]
    assert rig.moody.streams == streams
    assert rig.lender.ended == "1+1"


class Clock:
    """A loop whose time stands still, with the one timer that was set."""

    now = 0.0
    at = 0.0
    fired = False

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, check: Callable[[], None]) -> Clock:
        self.at, self.check = self.now + seconds, check
        return self

    def cancel(self) -> None:
        self.at = -1

    def pass_to(self, now: float) -> None:
        """Let time pass, and the timer fire when it is due."""
        while 0 <= self.at <= now:
            self.now, self.at, self.fired = self.at, -1, True
            self.check()
        self.now = now


class Speaking:
    """A call that gives messages."""

    def __init__(self, *messages: text_service_pb2.GenerateTextResponse) -> None:
        self._left = list(messages)
        self.cancelled = False

    async def read(self) -> text_service_pb2.GenerateTextResponse:
        return self._left.pop(0)

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize("alive", [True, False])
async def test_signs_of_life_hold_off_the_bound_on_the_first_event(
    monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    """A place in a queue may be waited for however long it takes; who shows no life has its time, and no longer."""
    clock: Any = Clock()
    nothing = text_service_pb2.GenerateTextResponse()
    call = Speaking(*[nothing] * 20, text("one"))
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "get_running_loop", lambda: clock)
        source = backends.RpcStream(call, Timeouts(connect_s=5, first_token_s=60, idle_s=20), backends.Running())
    for second in range(50, 1050, 50):
        clock.pass_to(second)
        if alive:
            await source.read()
        assert call.cancelled == (not alive and second > 65 + backends.GRACE_S)
    if alive:
        await source.read()
        clock.pass_to(1000 + 20 + backends.GRACE_S - 1)
        assert not call.cancelled, "after the first event the bound is the idle one"
        clock.pass_to(1000 + 20 + backends.GRACE_S)
        assert call.cancelled


async def test_whoever_counts_is_told_for_whom(rig: Rig) -> None:
    """So that one account's long texts wait for their turns beside others'."""
    asked = text_service_pb2.CountTokensRequest(model="m")
    asked.messages.add(role=text_pb2.ROLE_USER).parts.add(text="hi")
    assert await rig.operations.count_tokens(TEXT, asked, Caller(key="k", request_id="rid")) == 1
    assert (rig.moody.seen["x-moa-account"], rig.moody.seen["x-moa-priority"]) == ("acct", "high")


@over_grpc
async def test_a_service_that_is_down_is_503(rig: Rig) -> None:
    """A dead service is unavailable, safe to retry, and nothing is charged."""
    await rig.running.stop(0)
    with pytest.raises(Unavailable):
        await rig.ask("fine")
    assert rig.lender.ended == "voided"


async def test_an_answer_leaves_nothing_behind(rig: Rig) -> None:
    """A hundred answers leave no call and no timer alive."""
    for _ in range(100):
        await drained(await rig.ask("fine"))
    await asyncio.sleep(0)
    gc.collect()
    # `type`, not `isinstance`: torch has objects that import half of it when they are asked for their class.
    assert sum(type(thing) is backends.RpcStream for thing in gc.get_objects()) == 0


async def test_a_stranger_is_no_service() -> None:
    """Internal servers refuse calls without the service credential."""
    running = server.Server(service_token=TOKEN)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(Moody(), running.grpc)
    port = await running.start("127.0.0.1:0")
    async with channel(f"127.0.0.1:{port}") as to_text:
        call = text_service_pb2_grpc.TextServiceStub(to_text).GenerateText(
            text_service_pb2.GenerateTextRequest(model="m")
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await running.stop(0)


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_000, 40_000])
def test_a_request_for_a_whole_answer(size: int) -> None:
    """It is asked for by the bytes of the contract's message, whatever its size."""
    request = text_service_pb2.GenerateTextRequest(model="m" * size)
    assert TEXT.whole is not None
    asked = text_service_pb2.GenerateWholeTextRequest.FromString(TEXT.whole.asked(request))
    assert asked == text_service_pb2.GenerateWholeTextRequest(request=request)
