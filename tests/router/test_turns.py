"""How long a large body keeps the router's loop from everybody else, over how long reading it takes."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2

from moa.router.v1 import openai_service_pb2_grpc
from services.router.dialects.openai import chat_request
from tests.emulators.pictures import png
from tests.router.rig import KEY, Rig

SHARE = 0.5
"""Of the time that it takes to read a body; measured are 0.05 to 0.2, and 1 where the loop reads it."""
PICTURE = base64.b64encode(png(64, 64) + os.urandom(6_000_000)).decode()
PARTS = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(Path(tmp_path_factory.mktemp("objects")), public_url="http://nowhere.invalid") as running:
        yield running


class Turns:
    """The longest turn of a loop: of the processor time of its thread, so that other work on the machine is none."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._over = False

    async def watch(self) -> None:
        last = time.thread_time()
        while not self._over:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now

    async def end(self) -> None:
        self._over = True


def asked(rig: Rig, data: bytes) -> None:
    sent = [("grpc.max_send_message_length", 2 * len(data))]
    with grpc.insecure_channel(f"127.0.0.1:{rig.port}", options=sent) as channel:
        stub = openai_service_pb2_grpc.OpenAIServiceStub(channel)
        body = httpbody_pb2.HttpBody(content_type="application/json", data=data)
        assert list(stub.CreateChatCompletion(body, metadata=(("x-api-key", KEY),), timeout=120))


def read_s(data: bytes) -> float:
    began = time.thread_time()
    chat_request.read(data)
    return time.thread_time() - began


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "user", "content": PARTS}], id="a picture of 8 MB"),
        pytest.param([{"role": "user", "content": "hello there"}] * 10_000, id="10,000 messages"),
    ],
)
def test_a_large_body_is_no_turn_of_the_loop(rig: Rig, messages: list[dict[str, Any]]) -> None:
    """Reading it takes longer than any turn of the loop by which it passes."""
    data = json.dumps({"model": "anthropic.smart-v1:0", "messages": messages}).encode()
    asked(rig, data)  # the helper process is there now
    read = min(read_s(data) for _ in range(3))
    # What else the thread does, or a machine takes from it, only lengthens turns: a loop that read the body would have
    # a turn as long in each passage.
    assert any(longest_turn_s(rig, data) < SHARE * read for _ in range(3))


def longest_turn_s(rig: Rig, data: bytes) -> float:
    """Return the loop's longest turn while a body passes."""
    turns = Turns()
    running: list[asyncio.Task[None]] = []

    async def watching() -> None:
        running.append(asyncio.create_task(turns.watch()))

    gc.disable()  # it goes by all that other tests left
    try:
        rig.run(watching)
        asked(rig, data)
        rig.run(turns.end)
    finally:
        gc.enable()
    return turns.longest_s
