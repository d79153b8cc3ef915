"""Two routers, two text services and two auth services: every kind of call goes through, and goes on when one dies or
cannot be reached."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import requests

from deploy.local.ports import Ports
from services.auth.adapters.checker import Checker
from tests import stacks, waiting
from tests.e2e.conftest import Gateway
from tests.e2e.draining import drains
from tests.emulators.naver import CLIENT_ID, CLIENT_SECRET, Naver
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script
from tests.links import Link, Links
from tests.pictures import picture

MODELS = Path("inference/models").resolve()
IMAGE = {"model": "moa-tiny-image", "prompt": "a red circle", "width": 64, "height": 64, "diffusion": {"steps": 2}}
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
LITTLE = 40
TWICE = ("router", "text", "auth")


def _catalogue(port: int) -> dict[str, Any]:
    cloud = {"adapter": "openai", "makes": "text", "base_url": f"http://127.0.0.1:{port}/v1"}
    return {
        "providers": [
            {"id": "cloud", **cloud, "credentials": {"api_key": "CLOUD_KEY"}},
            {"id": "local-image", "adapter": "inference", "makes": "image"},
            {"id": "local-vision", "adapter": "inference", "makes": "vision"},
        ],
        "models": [
            {"id": "echo", "provider": "cloud", "upstream": "gpt-4o-mini"},
            {
                "id": "moa-tiny-image",
                "provider": "local-image",
                "capabilities": ["size", "steps", "seed", "edit"],
                "defaults": {"width": 128, "height": 128, "steps": 4},
                "load": {"source": str(MODELS / "moa-tiny-image"), "options": {"long_prompts": "cut"}},
            },
            {
                "id": "moa-tiny-vision",
                "provider": "local-vision",
                "capabilities": ["caption", "detect", "judge"],
                "load": {"source": str(MODELS / "moa-tiny-vision"), "options": {"threshold": 0.4}},
            },
        ],
    }


@dataclass(frozen=True)
class Doubled:
    """A gateway with two of each, as callers use it."""

    gateway: Gateway
    links: Links

    def link(self, caller: str, callee: str) -> Link:
        """Return the link from one process to another."""
        return self.links.between(caller, self.gateway.stack.address(callee))

    async def chat(self) -> None:
        """Ask for a whole answer."""
        answer = await self._post("/v1/chat/completions", CHAT)
        assert answer.json()["choices"][0]["finish_reason"] == "stop"

    async def stream(self) -> None:
        """Ask for a streamed answer."""
        answer = await self._post("/v1/chat/completions", {**CHAT, "stream": True})
        assert answer.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in answer.text

    async def image(self) -> None:
        """Ask for an image."""
        body = {"provider": "local-image", "model_id": "moa-tiny-image", "prompt": "a red circle"}
        answer = await self._post("/create/image", {**body, "num_inference_steps": 2})
        assert answer.json()["images"]

    async def task(self) -> None:
        """Have a task done."""
        made = (await self._post("/v1/tasks", {"work": {"image": IMAGE}})).json()["task"]["id"]
        await self.ended(f"/v1/tasks/{made}", lambda told: told["task"]["state"], "TASK_STATE_SUCCEEDED")

    async def prediction(self) -> None:
        """Have a prediction made while waiting."""
        body = {"input": {"prompt": "a red circle", "num_inference_steps": 2}}
        made = (await self._post("/v1/models/local/moa-tiny-image/predictions", body)).json()
        await self.ended(f"/v1/predictions/{made['id']}", lambda told: told["status"], "succeeded")

    async def desk(self) -> None:
        """Have a desk styled."""
        drawn = picture("five")
        out = io.BytesIO()
        drawn.image.save(out, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
        made = (await self._post("/v1/generate", {"initial_image_url": uri, "num_inference_steps": 4})).json()
        await self.ended(f"/v1/result/{made['task_id']}", lambda told: told["status"], "done")

    @property
    def kinds(self) -> list[Callable[[], Awaitable[None]]]:
        """Every kind of call."""
        return [self.chat, self.stream, self.image, self.task, self.prediction, self.desk]

    def served(self, process: str) -> float:
        """Count the calls that a process has served."""
        return self.gateway.metric(process, "moa_rpc_ended_total")

    async def _post(self, path: str, body: object) -> Any:
        answer = await asyncio.to_thread(self.gateway.post, path, body)
        assert answer.ok, answer.text
        return answer

    async def ended(self, path: str, state: Callable[[Any], str], wanted: str) -> None:
        """Return once what is at a path is in a state."""
        async with asyncio.timeout(120):
            while True:
                told = (await asyncio.to_thread(self.gateway.get, path)).json()
                if state(told) == wanted:
                    return
                assert "fail" not in state(told).lower(), json.dumps(told)
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def port() -> int:
    return Ports().any()


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Doubled]:
    root: Path = tmp_path_factory.mktemp("doubled")
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode(_catalogue(port)))
    with Naver() as shops:
        environment = {
            "MOA_CATALOGUE": str(catalogue),
            # Whoever is asked to stop ends what it has begun, however busy the machine.
            "MOA_DRAIN_S": "60",
            "CLOUD_KEY": "sk-good",
            "MOA_NAVER_URL": shops.url,
            "MOA_NAVER_CLIENT_ID": CLIENT_ID,
            "MOA_NAVER_CLIENT_SECRET": CLIENT_SECRET,
        }
        names = ("auth", "text", "inference", "router", "desk", "tasks", "edge")
        workers = dict.fromkeys(TWICE, 2)
        with (
            Links({"router": ("MOA_TEXT_ADDRESS", "MOA_AUTH_ADDRESS")}).carrying() as links,
            stacks.gateway(
                root / "state", environment=environment, processes=names, workers=workers, start=links.spawn
            ) as stack,
        ):
            yield Doubled(Gateway(stack), links)


@pytest.fixture
async def cloud(port: int) -> AsyncIterator[OpenAIEmulator]:
    emulator = OpenAIEmulator()
    await emulator.start(port)
    yield emulator
    await emulator.stop()


async def test_two_of_each_share_every_kind_of_call(doubled: Doubled, cloud: OpenAIEmulator) -> None:
    """Chats, streams, images, tasks, predictions and desks go through, and each process serves some of the calls."""
    names = [f"{name}{number}" for name in TWICE for number in ("", "-2")]
    before = {name: doubled.served(name) for name in names}
    for call in doubled.kinds:
        await call()
    async with asyncio.timeout(60):
        while any(doubled.served(name) == before[name] for name in names):
            await doubled.chat()


@pytest.mark.parametrize("name", ["router", "text-2"])
async def test_calls_go_on_when_one_is_killed(doubled: Doubled, cloud: OpenAIEmulator, name: str) -> None:
    """Every kind of call succeeds at once, by the other one; the killed one comes back and has its share again."""
    doubled.gateway.stack.kill(name)
    for call in doubled.kinds:
        await call()
    await asyncio.to_thread(doubled.gateway.stack.await_ready, name, wait_s=60)
    async with asyncio.timeout(60):
        while not doubled.served(name):
            await doubled.chat()


async def test_one_of_each_is_exchanged_amid_streams(doubled: Doubled, cloud: OpenAIEmulator) -> None:
    """A router, a text and an auth service that are asked to stop, as in an upgrade, end the streams that they have;
    what comes meanwhile the others answer, and nothing fails."""
    stack = doubled.gateway.stack
    for name in TWICE:
        held = [Script(hold_at=1) for _ in range(4)]
        cloud.scripts.extend(held)
        streams = [asyncio.create_task(doubled.stream()) for _ in held]
        async with asyncio.timeout(60):
            for each in held:
                await each.held.wait()
            pid = stack.pid(name)
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
            await drains(stack.address(name))
            await doubled.chat()
            for each in held:
                each.gate.set()
            await asyncio.gather(*streams)
        await asyncio.to_thread(stack.await_ready, name, wait_s=60)


class Askers:
    """Callers with two keys, one of which has few tokens, and what they were told."""

    def __init__(self, doubled: Doubled) -> None:
        self.doubled = doubled
        limits: dict[str, dict[str, int]] = {"little": {"tokens_a_day": LITTLE}, "much": {}}
        made = {
            name: doubled.gateway.post("/account/keys", {"name": name, "limits": limits[name]}).json()
            for name in limits
        }
        self._keys = {name: str(each["api_key"]) for name, each in made.items()}
        self._key_ids = [each["key"]["key_id"] for each in made.values()]
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.tokens: Counter[str] = Counter()
        self.tasks: list[str] = []

    async def ask(self) -> None:
        """Ask for eight answers, two at once for each key, and for a task."""
        await asyncio.gather(self._task(), *(self._chats(name, 2) for name in self._keys for _ in range(2)))

    async def _task(self) -> None:
        made = await asyncio.to_thread(self.doubled.gateway.post, "/v1/tasks", {"work": {"image": IMAGE}})
        assert made.status_code == 200, made.text
        self.tasks.append(made.json()["task"]["id"])

    async def _chats(self, name: str, count: int) -> None:
        for _ in range(count):
            answer = await asyncio.to_thread(self._chat, self._keys[name])
            self.statuses[name, answer.status_code] += 1
            if answer.ok:
                self.tokens[name] += answer.json()["usage"]["total_tokens"]
            else:
                assert answer.json()["error"]["message"]

    def _chat(self, key: str) -> requests.Response:
        url = f"{self.doubled.gateway.url}/v1/chat/completions"
        return requests.post(url, json=CHAT, headers={"X-API-Key": key}, timeout=60)

    async def charged(self, *, tokens: int, images: int) -> None:
        """Return once so much was charged of what these asked; more never is."""
        pauses = waiting.pauses()
        async with asyncio.timeout(60):
            while (found := await asyncio.to_thread(self.charges)) != (tokens, images):
                assert found[0] <= tokens, found
                assert found[1] <= images, found
                await asyncio.sleep(next(pauses))

    def charges(self) -> tuple[int, int]:
        """Return the tokens and images that the ledger says these were charged, and not what others still are."""
        with psycopg.connect(self.doubled.gateway.stack.database_url) as link:
            row = link.execute(
                "select coalesce(sum(tokens) filter (where key_id = any(%s)), 0)::int,"
                " coalesce(sum(images) filter (where request_id = any(%s)), 0)::int"
                " from ledger where kind in ('settle', 'late', 'orphan')",
                (self._key_ids, self.tasks),
            ).fetchone()
        assert row is not None
        return row[0], row[1]


async def test_nothing_is_lost_or_spent_twice_while_links_fail(doubled: Doubled, cloud: OpenAIEmulator) -> None:
    """A router that does not reach one text service, another whose link to auth is slow, and an auth service that is
    killed: callers are answered, nobody gets more than its quota, each task is done and charged once, and the ledger
    balances."""
    stack = doubled.gateway.stack
    askers = Askers(doubled)
    parted, slow = doubled.link("router", "text"), doubled.link("router-2", "auth")
    parted.cut()
    await askers.ask()
    parted.mend()
    slow.slow(20_000)
    await askers.ask()
    slow.mend()
    stack.kill("auth")
    await askers.ask()
    await asyncio.to_thread(stack.await_ready, "auth", wait_s=60)
    assert {status for name, status in askers.statuses if name == "much"} == {200}
    assert {status for name, status in askers.statuses if name == "little"} <= {200, 429}
    assert askers.tokens["little"] <= LITTLE
    for name in askers.tasks:
        await doubled.ended(f"/v1/tasks/{name}", lambda told: told["task"]["state"], "TASK_STATE_SUCCEEDED")
    await askers.charged(tokens=askers.tokens.total(), images=len(askers.tasks))
    assert not (await Checker(stack.database_url).check(whole=True)).faults
