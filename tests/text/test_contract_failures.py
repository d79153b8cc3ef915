"""What every text adapter does when things go wrong: refusals, leavers, silence, cut and damaged streams."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.text.harness import Failed, TextClient, chat, text_of
from tests.text.subjects import REASONS, Subject


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("stream", [True, False])
async def test_refusals_are_typed(
    service: TextClient, upstream: Emulator, subject: Subject, reason: str, stream: bool
) -> None:
    """Each way to be refused is one reason, told as a status before anything is written."""
    if reason not in subject.reasons:
        pytest.skip("the protocol has no word for it")
    upstream.scripts.append(Script(refuse=reason))
    request = chat()
    request.stream = stream
    with pytest.raises(errors.BY_WORD[reason]) as refused:
        await service.ask(request)
    words = f"Words about {reason}"
    about_the_caller = reason in ("context_too_long", "content_policy", "upstream_rejected")
    assert (words in refused.value.message) == about_the_caller


async def test_the_retry_time_is_passed_on(service: TextClient, upstream: Emulator) -> None:
    """A rate limit says when to come back."""
    upstream.scripts.append(Script(refuse="upstream_rate_limited", retry_after_s=17))
    with pytest.raises(errors.UpstreamRateLimited) as refused:
        await service.ask(chat())
    assert refused.value.retry_after_s == 17


@pytest.mark.parametrize("at", [-1, 0, 1])
async def test_a_caller_who_leaves_closes_the_upstream_socket(service: TextClient, upstream: Emulator, at: int) -> None:
    """Before the headers, before the first piece or after it: the provider sees the hang-up at once."""
    script = Script(hold_at=at)
    upstream.scripts.append(script)
    call = service.call(chat())
    if at == 1:
        await call.read()
    await asyncio.wait_for(script.held.wait(), 30)
    call.cancel()
    await script.hung_up(service.turn)


async def test_a_caller_who_leaves_a_whole_answer_closes_the_upstream_socket(
    service: TextClient, upstream: Emulator
) -> None:
    """The same when no stream was asked for."""
    script = Script(hold_at=0)
    upstream.scripts.append(script)
    request = chat()
    request.stream = False
    call = service.call(request)
    reading = asyncio.ensure_future(call.read())
    await asyncio.wait_for(script.held.wait(), 30)
    call.cancel()
    await script.hung_up(service.turn)
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await reading


@pytest.mark.parametrize("how", ["cut_at", "clip_at"])
@pytest.mark.parametrize("at", [1, 3])
async def test_cut_stream(service: TextClient, upstream: Emulator, how: str, at: int) -> None:
    """A stream that breaks, or ends without a finish reason, is never a clean end: an error event follows the text."""
    upstream.scripts.append(Script(**{how: at}))  # type: ignore[arg-type]
    with pytest.raises(Failed) as failed:
        await service.ask(chat())
    assert isinstance(failed.value.error, errors.UpstreamBroken)
    assert text_of(failed.value.before) == "".join(Script().text[:at])


async def test_a_stream_cut_before_its_first_piece_is_a_status(service: TextClient, upstream: Emulator) -> None:
    """Nothing was written yet, so the failure has its own status."""
    upstream.scripts.append(Script(cut_at=0))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(chat())


async def test_half_a_whole_answer_is_broken(service: TextClient, upstream: Emulator) -> None:
    """A whole answer whose second half never comes is a broken one."""
    upstream.scripts.append(Script(cut_at=0))
    request = chat()
    request.stream = False
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(request)


async def test_failure_inside_the_stream(service: TextClient, upstream: Emulator) -> None:
    """A failure that the provider reports mid-stream is an error event of its reason."""
    upstream.scripts.append(Script(fail_at=2))
    with pytest.raises(Failed) as failed:
        await service.ask(chat())
    assert isinstance(failed.value.error, errors.UpstreamFailed)
    assert text_of(failed.value.before) == "Hello "


async def test_failure_as_the_first_piece_is_a_status(service: TextClient, upstream: Emulator) -> None:
    """A failure that comes in place of the first piece still has its own status."""
    upstream.scripts.append(Script(fail_at=0))
    with pytest.raises(errors.UpstreamFailed):
        await service.ask(chat())


@pytest.mark.parametrize("at", [2, 5])
async def test_malformed_chunk(service: TextClient, upstream: Emulator, at: int) -> None:
    """A piece that cannot be read may have held a word: an error event ends the answer, after what came."""
    upstream.scripts.append(Script(malformed_at=at))
    with pytest.raises(Failed) as failed:
        await service.ask(chat())
    assert isinstance(failed.value.error, errors.UpstreamBroken)
    assert text_of(failed.value.before) == "".join(Script().text[:at])


async def test_a_malformed_first_chunk_is_a_status(service: TextClient, upstream: Emulator) -> None:
    """Nothing was written yet, so the failure has its own status, and another provider may answer."""
    upstream.scripts.append(Script(malformed_at=0))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(chat())


async def test_missing_end_mark(service: TextClient, upstream: Emulator) -> None:
    """A finish reason is the end, whether or not an end mark follows."""
    upstream.scripts.append(Script(end_mark=False))
    events = await service.ask(chat())
    assert events[-1].finished.usage.exact


async def test_an_upstream_that_does_not_hang_up(service: TextClient, upstream: Emulator) -> None:
    """An answer that is complete ends although the provider keeps its connection open without a word."""
    upstream.scripts.append(Script(end_mark=False, linger=True))
    events = await asyncio.wait_for(service.ask(chat()), 20)
    assert text_of(events) == "Hello 안녕 🌍!"
    assert events[-1].HasField("finished")


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_pieces_of_any_size(service: TextClient, upstream: Emulator, size: int) -> None:
    """Frames and characters that are torn apart on the wire come out whole."""
    upstream.scripts.append(Script(write_bytes=size))
    assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"


async def test_the_upstream_comes_back(service: TextClient, upstream: Emulator) -> None:
    """A provider that was restarted is reached again, in spite of the connections that died with it."""
    assert text_of(await service.ask(chat()))
    port = upstream.port
    await upstream.stop()
    with pytest.raises(errors.UpstreamFailed):
        await service.ask(chat())
    await upstream.start(port)
    assert text_of(await service.ask(chat()))


async def test_connections_are_kept(service: TextClient, upstream: Emulator) -> None:
    """Ten answers, streamed and whole, go over one connection."""
    for turn in range(10):
        request = chat()
        request.stream = turn % 2 == 0
        await service.ask(request)
    assert len({seen.peer for seen in upstream.seen}) == 1
