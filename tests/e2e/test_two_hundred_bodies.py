"""Two hundred large bodies through every service: served, refused and left. No process keeps them."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest

from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY, Stack
from tests import stacks
from tests.e2e.test_memory import LEFT_MB, PICTURE
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.emulators.pictures import ImageScript
from tests.emulators.script import Script
from tests.own_memory import own_mb

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

BODIES = 200
"""Of four megabytes each, of all kinds of a service together."""
NOISE = base64.b64decode(PICTURE.partition(",")[2])


@dataclass(frozen=True)
class Place:
    """A whole gateway, and the providers behind it."""

    stack: Stack
    chats: OpenAIEmulator
    pictures: OpenAIImagesEmulator
    session: aiohttp.ClientSession

    def megabytes(self) -> dict[str, float]:
        """Return the memory of each process; the edge's keeper counts with its Envoy."""
        found = {}
        for name in self.stack.names:
            process = psutil.Process(self.stack.pid(name))
            family = [process, *process.children(recursive=True)]
            found[name] = sum(own_mb(one.pid) for one in family)
        return found

    async def post(self, path: str, *, json: Any = None, form: aiohttp.FormData | None = None) -> int:
        """Return the status of an answer that is read to its end."""
        headers = {"X-API-Key": self.stack.api_key}
        body: Any = form
        if form is None:
            headers["Content-Type"] = "application/json"
            body = io.BytesIO(msgspec.json.encode(json))
        async with self.session.post(self.stack.url + path, headers=headers, data=body) as answer:
            await answer.read()
            self.chats.seen.clear()
            self.pictures.seen.clear()
            return answer.status

    async def left(self, asking: Awaitable[int], script: Script | None = None) -> int:
        """Leave a request once its provider has it."""
        task = asyncio.ensure_future(asking)
        if script is None:
            await asyncio.sleep(0)
            await asyncio.wait({task}, timeout=0.2)
        else:
            await script.held.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if script is not None:
            await script.left.wait()
        self.chats.seen.clear()
        self.pictures.seen.clear()
        return 0


def _catalogue(chats: int, pictures: int) -> bytes:
    """Return the shipped catalogue, with OpenAI on this machine."""
    shipped = REPOSITORY / "gateway" / "catalogue.yaml"
    found = msgspec.yaml.decode(shipped.read_bytes())
    for provider in found["providers"]:
        port = {"openai-text": chats, "openai-image": pictures}.get(provider["id"])
        if port:
            provider["base_url"] = f"http://127.0.0.1:{port}/v1"
    for model in found["models"]:
        source = model.get("load", {}).get("source", "")
        if source.startswith("../"):
            model["load"]["source"] = str((shipped.parent / source).resolve())
    return msgspec.yaml.encode(found)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int, int]]:
    root: Path = tmp_path_factory.mktemp("bodies")
    ports = Ports()
    chats, pictures = ports.any(), ports.any()
    (root / "catalogue.yaml").write_bytes(_catalogue(chats, pictures))
    environment = {"MOA_CATALOGUE": str(root / "catalogue.yaml"), "OPENAI_API_KEY": "sk-good"}
    with stacks.gateway(root / "state", environment=environment) as running:
        yield running, chats, pictures


@pytest.fixture
async def place(stack: tuple[Stack, int, int]) -> AsyncIterator[Place]:
    chats, pictures = OpenAIEmulator(), OpenAIImagesEmulator()
    await chats.start(stack[1])
    await pictures.start(stack[2])
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        yield Place(stack[0], chats, pictures, session)
    await chats.stop()
    await pictures.stop()


def _chat(place: Place, model: str) -> Awaitable[int]:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 5}
    return place.post("/v1/chat/completions", json=body)


def _edit(place: Place, model: str, **fields: str) -> Awaitable[int]:
    form = aiohttp.FormData()
    for name, value in {"model": model, "prompt": "a red circle", **fields}.items():
        form.add_field(name, value)
    form.add_field("image", io.BytesIO(NOISE), filename="noise.png", content_type="image/png")
    return place.post("/v1/images/edits", form=form)


async def text(place: Place, turn: int) -> int:
    """Ask the text service: served, refused by the provider, unknown, left."""
    match turn % 4:
        case 0:
            return await _chat(place, "gpt-4o-mini")
        case 1:
            place.chats.scripts.append(Script(refuse="upstream_rejected"))
            return await _chat(place, "gpt-4o-mini")
        case 2:
            return await _chat(place, "nobodys")
        case _:
            script = Script(hold_at=0)
            place.chats.scripts.append(script)
            return await place.left(_chat(place, "gpt-4o-mini"), script)


async def image(place: Place, turn: int) -> int:
    """Ask the image service, likewise; the answers are large, too."""
    match turn % 4:
        case 0:
            place.pictures.scripts.append(ImageScript(image=NOISE))
            return await _edit(place, "gpt-image-2.6-flare")
        case 1:
            place.pictures.scripts.append(ImageScript(filtered=True))
            return await _edit(place, "gpt-image-2.6-flare")
        case 2:
            return await _edit(place, "nobodys")
        case _:
            script = ImageScript(hold_at=0)
            place.pictures.scripts.append(script)
            return await place.left(_edit(place, "gpt-image-2.6-flare"), script)


async def inference(place: Place, turn: int) -> int:
    """Ask the engine: one edit in eight is made, others are left; prompts of four megabytes are too long."""
    match turn % 8:
        case 0:
            return await _edit(place, "moa-tiny-image", size="128x128")
        case 1 | 3 | 5 | 7:
            body = {"model": "moa-tiny-chat", "messages": [{"role": "user", "content": "long " * 800_000}]}
            return await place.post("/v1/chat/completions", json=body)
        case _:
            return await place.left(_edit(place, "moa-tiny-image", size="128x128"))


async def desk(place: Place, turn: int) -> int:
    """Order desks from what is no desk, from what is no picture, and without a valid key."""
    match turn % 4:
        case 0:
            return await place.post("/v1/generate", json={"initial_image_url": PICTURE, "num_inference_steps": 1})
        case 1:
            broken = "data:image/png;base64," + base64.b64encode(b"no picture" * 300_000).decode()
            return await place.post("/v1/generate", json={"initial_image_url": broken})
        case 2:
            return await place.post("/v1/generate", json={"nothing": PICTURE})
        case _:
            return await place.left(place.post("/v1/generate", json={"initial_image_url": PICTURE}))


async def tasks(place: Place, turn: int) -> int:
    """Order images in the background from large pictures, and from prompts that are too long."""
    if turn % 4 == 0:
        body = {"model": "gpt-image-2.6-flare", "prompt": "a red circle", "image": PICTURE}
        return await place.post("/api/image/gen", json=body)
    work = {"prompt": "x" * 4_000_000, "model": "nobodys" if turn % 2 else "moa-tiny-image"}
    return await place.post("/v1/tasks", json={"image": work})


Ask = Callable[[Place, int], Awaitable[int]]
EVERY: dict[Ask, int] = {text: 4, image: 4, inference: 8, desk: 4, tasks: 4}
"""With the number of their kinds."""


@pytest.mark.parametrize("ask", EVERY, ids=[ask.__name__ for ask in EVERY])
async def test_two_hundred_bodies_are_not_kept(place: Place, ask: Ask) -> None:
    """Soon after the last of them, with no other traffic, every process has about the memory that it had before."""
    for turn in range(3 * EVERY[ask]):
        await ask(place, turn)
    await _quiet(place)
    before = place.megabytes()
    statuses = [await ask(place, turn) for turn in range(BODIES)]
    await _quiet(place)

    def kept() -> dict[str, float]:
        return {name: now - before[name] for name, now in place.megabytes().items() if now > before[name] + LEFT_MB}

    for _ in range(100):
        if not kept():
            break
        await asyncio.sleep(0.1)
    assert not kept()
    # All kinds were what they are said to be, and nothing else went wrong.
    assert len(set(statuses)) > 1
    assert not {status for status in statuses if status >= 500}


async def _quiet(place: Place) -> None:
    """Return when no task is open: what was ordered is done."""
    headers = {"X-API-Key": place.stack.api_key}
    while True:
        async with place.session.get(place.stack.url + "/v1/tasks?page_size=100", headers=headers) as answer:
            found = await answer.json()
        if all(
            task["state"] not in ("TASK_STATE_PENDING", "TASK_STATE_RUNNING", "TASK_STATE_SUBMITTED")
            for task in found.get("tasks", ())
        ):
            return
        await asyncio.sleep(0.2)
