"""Answers that come compressed, though every request asks for none."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from services.catalogue import Timeouts
from services.common import errors
from services.providers.http.client import Outgoing, Pool, Reply
from services.providers.http.unzip import PIECE_BYTES, Unzip
from tests.text.harness import Row, chat, text_of, text_service
from tests.waiting import Turns

TEXT = b'{"answer": "' + b"words and words " * 2000 + b'"}'


@asynccontextmanager
async def answered(pieces: list[bytes], encoding: str) -> AsyncIterator[tuple[Callable[[], Any], str]]:
    """Serve an answer in pieces, and yield what asks for it, and its URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.headers["accept-encoding"] == "identity"
        response = web.StreamResponse(headers={"content-encoding": encoding})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pool = Pool(Timeouts())
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"

    async def ask() -> Reply:
        return await pool.send(Outgoing(URL(url), b"{}", {}), {"Accept-Encoding": "identity"})

    try:
        yield ask, url
    finally:
        await pool.close()
        await runner.cleanup()


async def whole(pieces: list[bytes], encoding: str, limit: int = 1 << 20) -> bytes:
    """Return what is read of an answer."""
    async with answered(pieces, encoding) as (ask, _):
        reply = await ask()
        try:
            return bytes(await reply.read_all(limit))
        finally:
            reply.close()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
async def test_gzip_is_read(encoding: str) -> None:
    """However it is spelled and cut, and where it is several members, with zeros behind."""
    packed = gzip.compress(TEXT)
    assert await whole([packed], encoding) == TEXT
    assert await whole([packed[:7], packed[7:60], packed[60:]], encoding) == TEXT
    assert await whole([packed + gzip.compress(b" and more") + bytes(512)], encoding) == TEXT + b" and more"
    assert await whole([], encoding) == b""


async def test_identity_is_no_compression() -> None:
    """A provider may say what it was asked for."""
    assert await whole([TEXT], "identity") == TEXT


async def test_a_stream_is_unpacked_as_it_comes() -> None:
    """Each event that the provider flushed is read before the next one is sent."""
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    unzip = Unzip()
    for number in range(3):
        event = b"data: %d\n\n" % number
        unzip.put(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH))
        got = b""
        while unzip.pending:
            got += unzip.some()
        assert got == event
    assert unzip.amid
    unzip.put(packer.flush())
    while unzip.pending:
        assert unzip.some() == b""
    assert not unzip.amid


async def test_a_bomb_takes_no_memory_and_nobodys_turn() -> None:
    """A small answer that unpacks to 64 MB is refused at the limit; pieces are small, and others run between them."""
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    megabyte = bytes(1 << 20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(64)) + packer.flush()
    async with answered([bomb], "gzip") as (ask, _):
        reply = await ask()
        tracemalloc.start()
        try:
            async with Turns() as turns:
                sizes = [len(await reply.read_some()) for _ in range(100)]
            assert max(sizes) <= PIECE_BYTES
            assert turns.taken >= 90
            with pytest.raises(errors.UpstreamBroken, match="too long"):
                await reply.read_all(4 << 20)
            assert tracemalloc.get_traced_memory()[1] < 24 << 20
        finally:
            tracemalloc.stop()
            reply.close()


def test_many_small_members_are_read_in_time() -> None:
    """What follows a member is not copied as a whole at each one's end."""
    unzip = Unzip()
    unzip.put(gzip.compress(b"") * 20_000 + gzip.compress(b"x"))
    got, steps = b"", 0
    while unzip.pending:
        got += unzip.some()
        steps += 1
    assert got == b"x"
    assert steps <= 20_001


@pytest.mark.parametrize(
    ("pieces", "encoding", "told"),
    [
        ([gzip.compress(TEXT)[:-20]], "gzip", "broke off"),
        ([TEXT], "gzip", "said to be gzip, and is not"),
        ([gzip.compress(TEXT) + b"more"], "gzip", "said to be gzip, and is not"),
        ([TEXT], "br", r"compressed \(br\), which nobody asked for"),
        ([TEXT], "gzip, br", r"compressed \(gzip, br\), which nobody asked for"),
        ([TEXT], "<script>", r"compressed \(unknown\), which nobody asked for"),
    ],
)
async def test_what_cannot_be_read_says_what_came(pieces: list[bytes], encoding: str, told: str) -> None:
    """Half an answer, no gzip, and other compressions are a broken answer that names them, never a silent success."""
    with pytest.raises(errors.UpstreamBroken, match=told):
        await whole(pieces, encoding)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_compressed_answer_of_a_model_is_read(tmp_path: Path, stream: bool) -> None:
    """Through the whole service: what the model said, whole or as a stream."""
    said: Row = {"index": 0, "finish_reason": "stop", "delta" if stream else "message": {"content": "hello"}}
    answer = json.dumps({"id": "1", "choices": [said]}).encode()
    if stream:
        answer = b"data: " + answer + b"\n\ndata: [DONE]\n\n"
    async with answered([gzip.compress(answer)], "gzip") as (_, url):
        provider: Row = {"id": "p", "makes": "text", "adapter": "openai", "base_url": url}
        models: list[Row] = [{"id": "m", "provider": "p"}]
        async with text_service(tmp_path, [provider], models, {}) as service, asyncio.timeout(20):
            request = chat()
            request.stream, request.max_tokens = stream, 100
            events = await service.ask(request)
    assert text_of(events) == "hello"
    assert events[-1].HasField("finished")
