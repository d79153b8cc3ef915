"""Streams whose router or Envoy was killed with -9 amid them: no client takes what it has for a whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import httpx
import httpx2
import msgspec
import openai
import psutil
import pytest
import requests
from google import genai
from google.genai import types

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from tests import stacks
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
"""The SDK's own."""

MODEL = "held"
MESSAGES: list[Any] = [{"role": "user", "content": "Tell me a story."}]
PIECES = ("Once ", "upon ", "a ", "time.")
AT = 2
"""The provider says nothing more from this piece on."""

Told = Callable[[], object]
"""What a client calls at each piece."""
Ask = Callable[[Stack, Told], Awaitable[None]]


async def openai_sync(stack: Stack, told: Told) -> None:
    def ask() -> None:
        with openai.OpenAI(base_url=stack.url + "/v1", api_key=stack.api_key) as client:
            for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
                if chunk.choices and chunk.choices[0].delta.content:
                    told()

    await asyncio.to_thread(ask)


async def openai_async(stack: Stack, told: Told) -> None:
    async with openai.AsyncOpenAI(base_url=stack.url + "/v1", api_key=stack.api_key) as client:
        async for chunk in await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                told()


def _google(stack: Stack) -> genai.Client:
    return genai.Client(api_key=stack.api_key, http_options=types.HttpOptions(base_url=stack.url))


async def google_sync(stack: Stack, told: Told) -> None:
    def ask() -> None:
        client = _google(stack)
        for chunk in client.models.generate_content_stream(model=MODEL, contents="Tell me a story."):
            if chunk.text:
                told()

    await asyncio.to_thread(ask)


async def google_async(stack: Stack, told: Told) -> None:
    client = _google(stack)
    async for chunk in await client.aio.models.generate_content_stream(model=MODEL, contents="Tell me a story."):
        if chunk.text:
            told()


async def grpc_stream(stack: Stack, told: Told) -> None:
    asked = text_service_pb2.GenerateTextRequest(model=MODEL, stream=True)
    asked.messages.add(role=text_pb2.ROLE_USER).parts.add(text="Tell me a story.")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.port}") as channel:
        stub: text_service_pb2_grpc.TextServiceAsyncStub = text_service_pb2_grpc.TextServiceStub(channel)
        async for answer in stub.GenerateText(asked, metadata=(("x-api-key", stack.api_key),)):
            if any(event.WhichOneof("event") != "started" for event in answer.events):
                told()


def _body(path: str) -> dict[str, Any]:
    return {"model" if path.startswith("/v1") else "model_id": MODEL, "messages": MESSAGES, "stream": True}


def _raw(path: str) -> Ask:
    """Read events as a script of a few lines would, by the standard of HTTP alone."""

    async def ask(stack: Stack, told: Told) -> None:
        def read() -> None:
            with requests.post(
                stack.url + path, json=_body(path), headers={"X-API-Key": stack.api_key}, stream=True, timeout=60
            ) as answer:
                for line in answer.iter_lines(chunk_size=1):
                    if b"Once" in line or b"upon" in line:
                        told()

        await asyncio.to_thread(read)

    return ask


async def aiohttp_lines(stack: Stack, told: Told) -> None:
    path = "/v1/chat/completions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(stack.url + path, json=_body(path), headers={"X-API-Key": stack.api_key}) as answer,
    ):
        async for line in answer.content:
            if b"Once" in line or b"upon" in line:
                told()


CLIENTS: dict[str, tuple[Ask, tuple[type[Exception], ...]]] = {
    "google, async": (google_async, (httpx2.TransportError, aiohttp.ClientError)),
    "openai, sync": (openai_sync, (openai.APIConnectionError, httpx.TransportError)),
    "openai, async": (openai_async, (openai.APIConnectionError, httpx.TransportError)),
    "google, sync": (google_sync, (httpx2.TransportError,)),
    "gRPC": (grpc_stream, (grpc.aio.AioRpcError,)),
    "requests, OpenAI": (_raw("/v1/chat/completions"), (requests.exceptions.ChunkedEncodingError,)),
    "requests, Anthropic": (_raw("/v1/messages"), (requests.exceptions.ChunkedEncodingError,)),
    "requests, native": (_raw("/generate/text"), (requests.exceptions.ChunkedEncodingError,)),
    "aiohttp": (aiohttp_lines, (aiohttp.ClientPayloadError,)),
}
"""Each way to read a stream, and what it raises where the connection breaks."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    root: Path = tmp_path_factory.mktemp("broken")
    port = Ports().any()
    provider = {
        "id": "main",
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "credentials": {"api_key": "KEY"},
    }
    catalogue = root / "catalogue.yaml"
    models = [{"id": MODEL, "provider": "main", "upstream": "gpt-4o-mini"}]
    catalogue.write_bytes(msgspec.yaml.encode({"providers": [provider], "models": models}))
    environment = {"MOA_CATALOGUE": str(catalogue), "KEY": "sk-good"}
    names = ("auth", "text", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as running:
        yield running, port


@pytest.fixture
async def provider(stack: tuple[Stack, int]) -> AsyncIterator[OpenAIEmulator]:
    emulator = OpenAIEmulator()
    await emulator.start(stack[1])
    yield emulator
    await emulator.stop()


@pytest.mark.parametrize("victim", ["router", "envoy"])
async def test_a_stream_whose_server_died_raises(
    stack: tuple[Stack, int], provider: OpenAIEmulator, victim: str
) -> None:
    """kill -9 of the router or of Envoy amid an answer: every client raises what it raises for a broken connection, and
    none comes to the end of an answer."""
    running = stack[0]
    provider.scripts += [Script(text=PIECES, hold_at=AT) for _ in CLIENTS]
    begun = {name: asyncio.Event() for name in CLIENTS}
    loop = asyncio.get_running_loop()

    async def ask(name: str) -> None:
        await CLIENTS[name][0](running, lambda: loop.call_soon_threadsafe(begun[name].set))

    asking: dict[str, asyncio.Task[None]] = {}
    for name, event in begun.items():
        asking[name] = asyncio.create_task(ask(name))
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait([asking[name], waiting], timeout=45, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), (name, asking[name])
    if victim == "envoy":
        [process] = psutil.Process(running.pid("edge")).children()
        process.kill()
    else:
        await asyncio.to_thread(running.kill, "router")
    answers = await asyncio.wait_for(asyncio.gather(*asking.values(), return_exceptions=True), 60)
    ended = dict(zip(asking, answers, strict=True))
    assert {name: error for name, error in ended.items() if not isinstance(error, CLIENTS[name][1])} == {}
    await asyncio.to_thread(running.await_ready, "router")
    await asyncio.to_thread(running.await_ready, "edge")
