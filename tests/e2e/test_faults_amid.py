"""Faults amid a request, over two routers: auth that is frozen while a key is claimed, helper processes that die."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import psycopg
import pytest
import requests

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from services.common.helper_process import FEW_VALUES
from tests import stacks
from tests.e2e.test_rescue import until
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script

PATH = "/v1/chat/completions"
WORD = "a word " * 8
LARGE: list[dict[str, str]] = [{"type": "text", "text": WORD}] * (FEW_VALUES + 1)
"""Of so many values that a process of large requests has its helper read it."""
NAMES = ("auth", "text", "largetext", "router", "largerouter", "tasks", "edge")
CALLERS = 16


@dataclass(frozen=True)
class World:
    """A gateway of two routers, with processes of their own for large requests, and the provider behind it."""

    stack: Stack
    provider: OpenAIEmulator

    async def ask(
        self, key: str = "", text: str | list[dict[str, str]] = "hello", path: str = PATH, **more: Any
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Ask over a connection of its own; give the status, the answer and its headers."""
        body: dict[str, Any] = {"model": "cloud", "messages": [{"role": "user", "content": text}], **more}
        if path != PATH:
            body = {"work": {"image": {"model": "nowhere", "prompt": WORD * len(text)}}}
        headers = {"X-API-Key": self.stack.api_key, **({"Idempotency-Key": key} if key else {})}
        async with (
            # The test's own time limit ends this.
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session,
            session.post(self.stack.url + path, json=body, headers=headers) as answer,
        ):
            return answer.status, json.loads(await answer.read()), {k.lower(): v for k, v in answer.headers.items()}

    def claimed(self) -> dict[str, float]:
        """Return how many claims each router made."""
        found = {}
        for router in ("router", "router-2"):
            text = requests.get(f"{self.stack.internal_url}/metrics/{router}", timeout=60).text
            lines = [line for line in text.splitlines() if line.startswith("moa_idempotent_requests_total{")]
            found[router] = sum(float(line.rpartition(" ")[2]) for line in lines)
        return found

    def harmed(self, name: str) -> int:
        """Return how many requests a service says that it lost with a helper."""
        return sum(self.stack.log(one).read_text().count("helper.ended") for one in self._all(name))

    def helpers(self, name: str) -> list[psutil.Process]:
        """Return the helper processes of a service."""
        children = [child for one in self._all(name) for child in psutil.Process(self.stack.pid(one)).children()]
        return [child for child in children if "services.common.helper_main" in child.cmdline()]

    def _all(self, name: str) -> list[str]:
        return [one for one in self.stack.names if one.partition("-")[0] == name]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    root: Path = tmp_path_factory.mktemp("amid")
    port = Ports().any()
    provider = {
        "id": "main",
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "credentials": {"api_key": "KEY"},
    }
    catalogue = root / "catalogue.yaml"
    models = [{"id": "cloud", "provider": "main", "upstream": "gpt-4o-mini"}]
    catalogue.write_bytes(msgspec.yaml.encode({"providers": [provider], "models": models}))
    environment = {"MOA_CATALOGUE": str(catalogue), "KEY": "sk-good", "MOA_IDEMPOTENCY_LEASE_S": "2"}
    made = stacks.gateway(root / "state", environment=environment, processes=NAMES, workers={"router": 2})
    with made as running:
        with psycopg.connect(running.database_url) as link:
            link.execute("update accounts set tokens_a_day = 1000000000")
        yield running, port


@pytest.fixture
async def world(stack: tuple[Stack, int]) -> AsyncIterator[World]:
    provider = OpenAIEmulator()
    await provider.start(stack[1])
    yield World(stack[0], provider)
    await provider.stop()


async def test_two_routers_do_what_one_key_asks_once(world: World) -> None:
    """Of many that ask at once under one key, whichever router has them, one is done and all others are told that it
    runs; afterwards both routers give its answer, and the provider was asked once."""
    before = await asyncio.to_thread(world.claimed)
    script = Script(hold_at=-1)
    world.provider.scripts.append(script)
    asking = [asyncio.create_task(world.ask("shared")) for _ in range(CALLERS)]
    await asyncio.wait_for(script.held.wait(), 90)
    done, held = asking, asking
    async with asyncio.timeout(60):
        while len(held) > 1:
            done, held = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[assignment]
            assert {task.result()[0] for task in done} == {409}
            assert all("retry-after" in task.result()[2] for task in done)
    script.gate.set()
    status, first, _ = await asyncio.wait_for(held.pop(), 90)
    assert status == 200
    again = await asyncio.gather(*(world.ask("shared") for _ in range(CALLERS)))
    assert all(answer == first and headers["idempotent-replayed"] == "true" for _, answer, headers in again)
    assert len(world.provider.seen) == 1
    after = await asyncio.to_thread(world.claimed)
    assert all(after[router] > before[router] for router in after), (before, after)


async def test_auth_that_is_frozen_amid_a_claim_delays_nobody_for_long(world: World) -> None:
    """Auth hangs for longer than a claim's lease while its request is worked at: the caller has its answer still.
    When auth goes on the answer is kept: asked again it is given, not lost, and nothing is done twice."""
    script = Script(hold_at=-1)
    world.provider.scripts.append(script)
    asking = asyncio.create_task(world.ask("frozen"))
    await asyncio.wait_for(script.held.wait(), 90)
    auth = psutil.Process(world.stack.pid("auth"))
    auth.send_signal(signal.SIGSTOP)
    try:
        with psycopg.connect(world.stack.database_url) as link:

            def is_over() -> bool:
                row = link.execute(
                    "select bool_and(leased_until < now()) from idempotent_requests where kept_at is null"
                )
                return bool((row.fetchone() or [False])[0])

            link.autocommit = True
            await until(is_over)
        script.gate.set()
        status, first, _ = await asyncio.wait_for(asking, 30)
        assert status == 200
    finally:
        auth.send_signal(signal.SIGCONT)
    seen: list[tuple[int, str]] = []
    async with asyncio.timeout(60):
        while True:
            status, answer, headers = await world.ask("frozen")
            seen.append((status, answer.get("error", {}).get("code", "")))
            if status == 200:
                break
    assert (answer, headers["idempotent-replayed"]) == (first, "true"), seen
    assert len(world.provider.seen) == 1


async def _killed_amid(world: World, name: str, path: str) -> int:
    """Kill a service's helper while a request lies with it; return the status that its caller was given."""
    pause_s = 0.2
    while True:
        await world.ask(text=LARGE, path=path)
        helpers, before = world.helpers(name), world.harmed(name)
        for helper in helpers:
            helper.suspend()
        asking = asyncio.create_task(world.ask(text=LARGE, path=path))
        await asyncio.sleep(pause_s)
        for helper in helpers:
            helper.kill()
        status, _, _ = await asking
        if world.harmed(name) > before:
            return status
        # It had not come that far yet, and another helper did it.
        pause_s *= 3


@pytest.mark.parametrize(
    ("name", "path", "told", "after"),
    [
        ("largerouter", PATH, 503, 200),
        # The router asks again: nobody had seen the request.
        pytest.param("largetext", PATH, 200, 200, marks=pytest.mark.long),
        # The model that the body names is nowhere.
        pytest.param("tasks", "/v1/tasks", 503, 404, marks=pytest.mark.long),
    ],
)
async def test_a_helper_that_dies_amid_a_body_harms_that_request_alone(
    world: World, name: str, path: str, told: int, after: int
) -> None:
    """Its caller is told to try again, or notices nothing where another try is made for it; then all is well again. The
    processes of small requests have no large one to work on."""
    assert await _killed_amid(world, name, path) == told
    assert (await world.ask(text=LARGE, path=path))[0] == after
    assert not world.helpers("router")
    assert not world.helpers("text")
