"""Which models are in memory together: by need and budget, swapped or refused, never beyond what there is."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.engine import Standing
from inference.machine import lower_priority
from inference.needs import available_bytes, needed_bytes
from inference.registry import Registry
from inference.text.llama.model import LlamaModel
from services.catalogue import Load, Model
from services.common.errors import ModelMisconfigured, Unavailable
from tests.inference.gguf_file import SHIPPED, written
from tests.inference.harness import until

MB = 10**6


class Engine:
    """An engine of so many bytes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def standing(self) -> Standing:
        raise AssertionError("only what is loaded is looked at")


def model(name: str, need: int, idle_s: float = 0.0) -> Model:
    return Model(id=name, provider="p", load=Load(source=f"/{name}", idle_s=idle_s, options={"need": need}))


def need_of(one: Model) -> int:
    assert one.load is not None
    return int(one.load.options["need"])


@asynccontextmanager
async def registry(**settings: Any) -> AsyncIterator[Registry]:
    made = Registry(lambda one, report: Engine(need_of(one)), needs=need_of, **settings)
    yield made
    await made.close()


async def use(made: Registry, one: Model) -> None:
    async with made.use(one):
        pass


async def test_idle_models_leave_for_another() -> None:
    """What does not fit beside the others makes the one that was unused for longest leave, and no more than needed."""
    async with registry(budget_bytes=100 * MB) as made:
        for name in ("a", "b", "c"):
            await use(made, model(name, 30 * MB))
        await use(made, model("a", 30 * MB))
        await use(made, model("d", 40 * MB))
        assert made.loaded() == ["c", "a", "d"]


async def test_a_model_waits_for_what_answers_and_is_refused_in_words() -> None:
    """Beside a model that answers there is no room: the other one waits, for so long, and is then refused by name; when
    the answer ends in time, it takes the place."""
    async with registry(budget_bytes=100 * MB, wait_s=0.05) as made, AsyncExitStack() as answering:
        await answering.enter_async_context(made.use(model("busy", 60 * MB)))
        with pytest.raises(Unavailable, match=r"no room in memory beside what is answering \(busy\)") as caught:
            await use(made, model("other", 60 * MB))
        assert caught.value.retry_after_s == 5
    async with registry(budget_bytes=100 * MB, wait_s=60) as made, AsyncExitStack() as answering:
        await answering.enter_async_context(made.use(model("busy", 60 * MB)))
        waiting = asyncio.create_task(use(made, model("other", 60 * MB)))
        await until(lambda: made.loading(model("other", 60 * MB)) is not None)
        assert made.loaded() == ["busy"]
        await answering.aclose()
        await waiting
        assert made.loaded() == ["other"]


async def test_what_never_fits_is_refused_at_once() -> None:
    """A model beyond the budget, or beyond what the machine can give, is refused before it is loaded; nobody leaves."""
    free = [500 * MB]
    async with registry(budget_bytes=100 * MB, available=lambda: free[0]) as made:
        await use(made, model("small", 10 * MB))
        with pytest.raises(ModelMisconfigured, match="needs 101 MB of memory; 100 MB are for models here"):
            await use(made, model("huge", 101 * MB))
        assert made.loaded() == ["small"]
    async with registry(available=lambda: free[0]) as made:
        free[0] = 150 * MB
        with pytest.raises(Unavailable, match="which this machine does not have now"):
            await use(made, model("large", 100 * MB))
        free[0] = 300 * MB
        await use(made, model("large", 100 * MB))


async def test_a_model_leaves_after_its_idle_time() -> None:
    """A row with `idle_s` is unloaded when nobody used it for so long; a use meanwhile begins the time anew."""
    async with registry() as made:
        brief, lasting = model("brief", MB, idle_s=0.1), model("lasting", MB)
        await use(made, lasting)
        await use(made, brief)
        async with made.use(brief):
            await asyncio.sleep(0.1)  # the timer of the first use ends before this one, while the model is in use
            assert "brief" in made.loaded()
        seen: list[bool] = []
        # Timers fire in the order of their ends: the second use's, this one, the third use's.
        asyncio.get_running_loop().call_later(0.1, lambda: seen.append("brief" in made.loaded()))
        await use(made, brief)
        await until(lambda: bool(seen))
        assert seen == [True]
        await until(lambda: made.loaded() == ["lasting"])
        await use(made, brief)
        assert "brief" in made.loaded()


async def test_a_model_is_warmed_in_the_background() -> None:
    """What nobody asked for is loaded at the lowest priority, by a thread of its own, and takes no other's place; once
    somebody asks, it hurries; what was asked for is loaded as ever."""
    nice: dict[str, int] = {}
    begun, go_on = threading.Event(), threading.Event()

    def build(one: Model, report: Any) -> Engine:
        if one.id == "slow":
            begun.set()
            assert go_on.wait(60)
        nice[one.id] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return Engine(need_of(one))

    hurried: list[bool] = []

    def lower() -> Callable[[], None]:
        raise_again = lower_priority()

        def hurry() -> None:
            raise_again()
            hurried.append(True)

        return hurry

    usual = os.getpriority(os.PRIO_PROCESS, 0)
    made = Registry(build, needs=need_of, budget_bytes=100 * MB, lower=lower)
    await made.warm(model("warmed", 40 * MB))
    await use(made, model("asked", 40 * MB))
    assert made.loaded() == ["warmed", "asked"]
    lowest = 19 if sys.platform == "linux" else usual
    assert nice == {"warmed": lowest, "asked": usual}
    with pytest.raises(Unavailable, match="has no room beside the others"):
        await made.warm(model("large", 40 * MB))
    assert made.loaded() == ["warmed", "asked"]
    warming = asyncio.create_task(made.warm(model("slow", 10 * MB)))
    await asyncio.to_thread(begun.wait, 60)
    asking = asyncio.create_task(use(made, model("slow", 10 * MB)))
    await until(lambda: hurried)
    go_on.set()
    await asyncio.gather(warming, asking)
    assert "slow" in made.loaded()
    await made.close()


def test_needs_are_told_from_the_files(tmp_path: Path) -> None:
    """Of safetensors what the numbers take as they are computed; of GGUF the file and the cache that it will have."""
    shipped = Model(id="m", provider="p", load=Load(source=str(SHIPPED.resolve())))
    size = (SHIPPED / "model.safetensors").stat().st_size
    assert 1.9 * size < needed_bytes(shipped) < 2.1 * size
    file = written(tmp_path / "model.gguf")
    gguf = Model(id="m", provider="p", context_tokens=256, load=Load(source=str(file), options={"rows": 4}))
    loaded = LlamaModel(file, name="m", context=256, revision="", threads=1)
    layers, heads, wide = 4, 2, 32
    assert needed_bytes(gguf) == file.stat().st_size + 2 * layers * heads * wide * 4 * 256 * 2
    assert loaded.context == 256
    assert needed_bytes(Model(id="m", provider="p", load=Load(source="owner/name"))) == 0
    for name, data in {"broken.gguf": b"GGUF\x03", "model.safetensors": b"\xff" * 40}.items():
        broken = tmp_path / name.partition(".")[0] / name
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(data)
        assert needed_bytes(Model(id="m", provider="p", load=Load(source=str(broken.parent)))) in (0, len(data))
    free = available_bytes()
    assert free is None or free > 0
