"""A large request waits for room before it is received, and its bytes are gone once they are read."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.common.byte_admission import Bounds, ByteAdmission
from services.common.helper_process import HelperProcess
from services.common.large import LARGE_BYTES as HEAVY_BYTES
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.server import Server

METHOD = "/moa.text.v1.TextService/CountTokens"
TOKEN = "a-token"
LARGE = 4 * 2**20
REQUEST = text_service_pb2.CountTokensRequest(model="m" * LARGE).SerializeToString()

Count = Callable[[Any], Awaitable[int]]


class Text(text_service_pb2_grpc.TextServiceServicer):
    def __init__(self, count: Count) -> None:
        self._count = count

    async def CountTokens(self, request: Any, context: Any) -> Any:
        taken = [request]
        del request
        return text_service_pb2.CountTokensResponse(prompt_tokens=await self._count(taken.pop()))

    def GenerateText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")


@asynccontextmanager
async def served(
    admission: ByteAdmission,
    count: Count,
    *,
    token: str | None = TOKEN,
    helper: HelperProcess | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    server = Server(service_token=token, admission=admission, helper=helper)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(Text(count), server.grpc)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


def known(account: str, size: int = len(REQUEST)) -> Any:
    return metadata(TOKEN, "r", (calls.ACCOUNT_KEY, account), (calls.BODY_BYTES_KEY, str(size)))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_large_request_that_finds_no_room_is_not_received() -> None:
    """It stays with whoever sends it until its turn comes: here, its sender cannot write it."""
    admission = ByteAdmission(Bounds(served=LARGE, served_of_account=LARGE))
    go = asyncio.Event()

    async def count(request: Any) -> int:
        if request.ByteSize() > HEAVY_BYTES:
            await go.wait()
        return 7

    async with served(admission, count) as channel:
        first = asyncio.ensure_future(_whole(channel, known("a")))
        await until(lambda: admission.served_bytes == len(REQUEST))
        call: Any = channel.stream_unary(METHOD)(metadata=known("b"))
        writing = asyncio.create_task(call.write(REQUEST))
        await until(lambda: admission.waiting_bytes == len(REQUEST))
        # Small ones pass by, and so the server has had every turn that receiving it would take.
        small = text_service_pb2.CountTokensRequest(model="m").SerializeToString()
        for _ in range(50):
            assert await _whole(channel, known("c", 0), small) == 7
        assert not writing.done()
        go.set()
        assert await first == 7
        await writing
        await call.done_writing()
        assert text_service_pb2.CountTokensResponse.FromString(await call).prompt_tokens == 7
    assert admission.served_bytes == admission.waiting_bytes == 0


async def test_beyond_what_may_wait_the_caller_is_told() -> None:
    """The account's own bound is a 429's code, with the time after which it may try again."""
    admission = ByteAdmission(Bounds(served=LARGE, served_of_account=LARGE, waiting_of_account=LARGE))
    go = asyncio.Event()

    async def count(request: Any) -> int:
        await go.wait()
        return 7

    async with served(admission, count) as channel:
        asked = [asyncio.ensure_future(_whole(channel, known("a"))) for _ in range(2)]
        await until(lambda: admission.waiting_bytes > 0)
        with pytest.raises(grpc.aio.AioRpcError, match="too many large requests") as refused:
            await _whole(channel, known("a"))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        go.set()
        assert await asyncio.gather(*asked) == [7, 7]


async def test_whoever_did_not_say_the_size_takes_room_as_well() -> None:
    """Services among themselves say none; their requests are counted as they come."""
    admission = ByteAdmission()
    taken: list[int] = []

    async def count(request: Any) -> int:
        taken.append(admission.served_bytes)
        return 7

    async with served(admission, count) as channel:
        await _whole(channel, known("a", 0))
        small = text_service_pb2.CountTokensRequest(model="m" * (HEAVY_BYTES // 2)).SerializeToString()
        await _whole(channel, known("a", 0), small)
    assert taken == [len(REQUEST), 0]


async def test_the_bytes_are_gone_while_the_handler_works() -> None:
    """What a handler needs is its message: nothing else keeps the request, and it may let go of the message as well."""
    held: list[int] = []

    async def count(request: Any) -> int:
        before = tracemalloc.get_traced_memory()[0]
        del request
        held.append(before)
        return 7

    async with served(ByteAdmission(), count) as channel:
        await _whole(channel, known("a"))  # what is made once is made
        held.clear()
        tracemalloc.start()
        try:
            base = tracemalloc.get_traced_memory()[0]
            await _whole(channel, known("a"))
        finally:
            tracemalloc.stop()
    # The client, which is in this process, keeps what it sends; it was made before.
    assert held[0] - base < LARGE // 2, f"{(held[0] - base) / LARGE:.2f} times the request"


async def test_a_large_typed_request_is_read_beside() -> None:
    """Its message is the same, and what is not known in it is refused by name, as in a small one."""
    models: list[str] = []

    async def count(request: Any) -> int:
        models.append(request.model)
        return 7

    helper = HelperProcess()
    async with served(ByteAdmission(), count, token=None, helper=helper) as channel:
        small = text_service_pb2.CountTokensRequest(model="small")
        assert await _whole(channel, (), small.SerializeToString()) == 7
        assert helper.pid is None
        assert await _whole(channel, ()) == 7
        assert helper.pid is not None
        assert models == ["small", "m" * LARGE]
        for request in (small, text_service_pb2.CountTokensRequest(model="m" * LARGE)):
            request.messages.add().ParseFromString(b"\x08\x63")  # a role that is none
            with pytest.raises(grpc.aio.AioRpcError, match="there is no value 99"):
                await _whole(channel, (), request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be read"):
            await _whole(channel, (), b"\xff" * LARGE)
    await helper.aclose()


async def _whole(channel: grpc.aio.Channel, sent: Any, request: bytes = REQUEST) -> int:
    call: Any = channel.unary_unary(METHOD)
    return text_service_pb2.CountTokensResponse.FromString(await call(request, metadata=sent)).prompt_tokens
