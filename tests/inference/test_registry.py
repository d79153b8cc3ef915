"""Models come, are shared, change and leave, while requests go on."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.catalogue import load
from services.common import errors
from tests.inference.harness import CATALOGUE, Client, Running, until
from tests.inference.pipes import built

CHAT_FOLDER = Path("inference/models/moa-tiny-chat")


def catalogue(file: Path, sources: dict[str, tuple[str, Path]]) -> Path:
    """Write a catalogue of models: id -> (provider, folder)."""
    providers = [{"id": f"local-{makes}", "adapter": "inference", "makes": makes} for makes in ("text", "image")]
    models = [
        {
            "id": name,
            "provider": provider,
            "context_tokens": 512,
            "defaults": {"width": 64, "height": 64, "steps": 3} if provider == "local-image" else {},
            "load": {"source": str(folder)},
        }
        for name, (provider, folder) in sources.items()
    ]
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"providers": providers, "models": models}))
    partial.replace(file)
    return file


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    """Serve two text models and a picture model, with memory for about one of them."""
    copy = tmp_path / "copy"
    shutil.copytree(CHAT_FOLDER, copy)
    sources = {
        "one": ("local-text", CHAT_FOLDER.resolve()),
        "two": ("local-text", copy),
        "picture": ("local-image", built("sd", tmp_path / "sd")),
        "pickled": ("local-text", pickled(tmp_path / "pickled")),
        "nowhere": ("local-text", tmp_path / "nowhere"),
        "unknown": ("local-image", CHAT_FOLDER.resolve()),
    }
    file = catalogue(tmp_path / "catalogue.yaml", sources)
    server = Running(file, model_bytes=9_000_000)
    yield server, file
    server.stop()


def pickled(folder: Path) -> Path:
    """Write a model whose weights are a pickle."""
    shutil.copytree(CHAT_FOLDER, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


async def test_models_share_a_budget_and_idle_ones_leave(served: tuple[Running, Path]) -> None:
    """Loading a model beyond the budget unloads the idle one that was used longest ago; asked again, it is back."""
    server, _ = served
    client = Client(server.address)
    registry = server.process.registry
    first = await client.text("What is the capital of Korea?", model="one")
    assert registry.loaded() == ["one"]
    left = weakref.ref(server.engine("one"))
    await client.text("Hello", model="two")
    assert registry.loaded() == ["two"]
    until = time.monotonic() + 30
    while left() is not None and time.monotonic() < until:
        # Its last request may not have come to its end in the server's own thread.
        gc.collect()
        await asyncio.sleep(0.05)
    assert left() is None, "nothing holds the unloaded model's memory"
    again = await client.text("What is the capital of Korea?", model="one")
    assert again.text == first.text
    assert registry.loaded() == ["one"]
    out = await client.image(model="picture", prompt="x")
    assert out.images
    assert "picture" in registry.loaded()
    await client.close()


async def test_a_model_in_use_stays(served: tuple[Running, Path]) -> None:
    """A model that answers is not unloaded for another: that one waits for the answer's end, then takes its place."""
    server, _ = served
    client = Client(server.address)
    call = client.text_call("Tell me a story about a fox.", model="one", max_tokens=100)
    await call.read()
    await client.text("Hello", model="two")
    last: Any = None
    while (response := await call.read()) is not grpc.aio.EOF:
        last = response
    assert last.events[-1].HasField("finished")
    await client.close()


async def test_a_changed_model_is_swapped_without_a_lost_request(served: tuple[Running, Path], tmp_path: Path) -> None:
    """While requests go on, the catalogue points a model at other weights: none fails, and new ones get the new."""
    server, file = served
    client = Client(server.address)
    await client.image(model="picture", prompt="x", seed=1)
    before = server.engine("picture")
    other = built("sdxl", tmp_path / "sdxl")
    text = file.read_text().replace(f'"{tmp_path / "sd"}"', f'"{other}"')
    seen: set[str] = set()
    changed = asyncio.create_task(asyncio.to_thread(file.write_text, text))
    async with asyncio.timeout(60):
        while len(seen) < 2:
            outs = await asyncio.gather(*(client.image(model="picture", prompt="x", seed=s) for s in (1, 2)))
            seen |= {out.images[0].receipt.revision for out in outs}
    await changed
    assert server.engine("picture") is not before
    # The thread of the old weights ends; the new ones' has the same name.
    await until(lambda: [thread.name for thread in threading.enumerate()].count("image-picture") == 1)
    await client.close()


@pytest.mark.parametrize(("name", "makes"), [("pickled", "text"), ("nowhere", "text"), ("unknown", "image")])
async def test_what_cannot_be_loaded_is_refused(served: tuple[Running, Path], name: str, makes: str) -> None:
    """Pickled weights, a missing folder and a folder without a pipeline are refused, and the process goes on."""
    server, _ = served
    client = Client(server.address)
    for _ in range(2):
        with pytest.raises(errors.ModelMisconfigured) as caught:
            await (
                client.text("Hello", model=name)
                if makes == "text"
                else client.image(model=name, prompt="x", stream=False)
            )
        assert "/" not in caught.value.message, "no path is told"
    await client.close()


async def test_many_at_once_load_a_model_once(served: tuple[Running, Path]) -> None:
    """Requests that come while a model is being loaded wait for that one load."""
    server, _ = served
    client = Client(server.address)
    outs = await asyncio.gather(*(client.text("Hello", model="one") for _ in range(6)))
    assert len({out.text for out in outs}) == 1
    assert len(server.process.registry.engines()) == 1
    await client.close()


def test_the_shipped_catalogue_names_folders_that_are_there() -> None:
    """Every model of the shipped catalogue that is loaded here is in its folder, or in a package that is pinned."""
    loads = [model.load for model in load(CATALOGUE, {}).models if model.load is not None]
    assert len(loads) > 2
    for one in loads:
        assert Path(one.source).is_dir() or (one.source.startswith("package:") and one.revision and len(one.pins) > 1)
