"""A catalogue of thousands of rows is taken in without holding up whoever is served, and without waste."""

from __future__ import annotations

import asyncio
import gc
import importlib
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.catalogue import CatalogueError, Listed, prepared, reading
from services.catalogue._compact import Compact, compact_of
from services.catalogue._load import assembled, load, reload
from services.catalogue._model import Model, Provider
from services.catalogue._snapshot import SLICE, finished
from tests import shipped

PROVIDER = Provider(id="p", adapter="openai", makes="text", base_url="http://x", credentials={"api_key": "P_KEY"})
loading = importlib.import_module("services.catalogue._load")  # the package has a function of that name
LIMIT_MB_OF_6000 = 15
ROWS = 1_500
LARGE = 4_000
"""Rows that make a file so large that it is never parsed in the process that serves."""


def rows(count: int) -> list[Model]:
    """Return so many models, each like one that ships."""
    models = [model for model in shipped.catalogue().models if model.load is None]
    return [
        msgspec.structs.replace(
            models[number % len(models)],
            id=f"{models[number % len(models)].id}-{number}",
            provider="p",
            aliases=(f"alias-{number}",),
            retirement=None,
            fallback=(),
        )
        for number in range(count)
    ]


def written(path: Path, count: int) -> Path:
    lines = [f"  - {{id: model-number-{number}, provider: p}}" for number in range(count)]
    head = 'providers:\n  - {id: p, adapter: openai, makes: text, base_url: "http://x"}\nmodels:\n'
    path.write_text(head + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail whoever parses YAML in this process."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("parsed here")

    monkeypatch.setattr(msgspec.yaml, "decode", refuse)


@pytest.mark.usefixtures("no_parsing")
async def test_a_reload_is_parsed_by_another_process(tmp_path: Path) -> None:
    """Whatever its size: what parsing takes is no turn of the loop, and what it leaves is in no process that serves."""
    catalogue = await reload(written(tmp_path / "catalogue.yaml", 3), {})
    assert [model.id for model in catalogue.models] == ["model-number-0", "model-number-1", "model-number-2"]


@pytest.mark.usefixtures("no_parsing")
def test_a_large_file_is_parsed_by_another_process_at_the_start_too(tmp_path: Path) -> None:
    """The memory that parsing leaves behind would stay as long as the process."""
    catalogue = load(written(tmp_path / "catalogue.yaml", LARGE), {})
    assert catalogue.find("p/model-number-7").id == "model-number-7"
    assert len(catalogue.models) == LARGE


def test_rows_that_were_kept_are_those_of_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was forked parses nothing, unless the file has changed or an operator's facts belong to it."""
    monkeypatch.setattr(prepared, "READINGS", {})
    path, facts = written(tmp_path / "catalogue.yaml", 3), tmp_path / "facts.kept"
    prepared.keep(path, reading.read(path))
    with monkeypatch.context() as patch:
        patch.setattr(msgspec.yaml, "decode", None)
        assert len(load(path, {}, kept=(facts, "https://facts.example")).models) == 3
    facts.touch()
    assert prepared.rows_of(path, facts) is None
    assert prepared.rows_of(written(path, 4), None) is None
    path.write_text("models: [")
    assert not reading.read(path)


async def test_a_bad_file_is_refused_with_its_place_by_whoever_reads_it(tmp_path: Path) -> None:
    """The words are the same in this process and from the other."""
    path = tmp_path / "catalogue.yaml"
    path.write_text(written(path, 3).read_text() + "  - {id: model-number-1, provider: p}\n")
    with pytest.raises(CatalogueError) as here:
        load(path, {})
    with pytest.raises(CatalogueError) as there:
        await reload(path, {})
    assert str(here.value) == str(there.value) == f"{path}: model p/model-number-1 stands twice"
    with pytest.raises(CatalogueError, match="No such file"):
        await reload(tmp_path / "none.yaml", {})


async def test_others_have_a_turn_after_each_slice_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both where the rows are made and where they are indexed, in its three passes."""
    handed_over = compact_of(([PROVIDER], rows(ROWS), []))

    async def read(path: Path) -> Compact:
        return handed_over

    monkeypatch.setattr(loading, "read_apart", read)
    turns = 0
    reloading = asyncio.create_task(reload(Path("anywhere"), {"P_KEY": "k"}))
    while not reloading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= ROWS // SLICE * 4
    assert reloading.result().configured == {"p"}


def test_the_snapshot_is_that_of_a_whole_read() -> None:
    """Names, fallbacks and order do not depend on the way in which rows came."""
    whole = shipped.catalogue()
    every = [*whole.models, *whole.vision]
    inner = {provider.id: provider for provider in whole.providers.values()}
    apart = finished(assembled(compact_of((list(inner.values()), [m for m in every if m.provider in inner], [])), {}))
    assert apart.models == whole.models
    for model in whole.models:
        for name in (model.id, model.full_id, *model.aliases):
            assert apart.find(name) == whole.find(name)
        assert apart.fallbacks(model) == whole.fallbacks(model)


def test_rows_share_what_is_equal_in_them() -> None:
    """Of 6,000 rows most say the same of what they can do, take and cost: a snapshot of them is 15 MB at most."""
    given = compact_of(([PROVIDER], rows(ROWS), []))
    tracemalloc.start()
    try:
        catalogue = finished(assembled(given, {}))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < LIMIT_MB_OF_6000 / 6_000 * len(catalogue.models) * 2**20, (
        f"{taken / len(catalogue.models):.0f} a row"
    )
    first = catalogue.models[0]
    same = next(m for m in catalogue.models[1:] if m.id.rpartition("-")[0] == first.id.rpartition("-")[0])
    assert first.limits is same.limits
    assert first.capabilities is same.capabilities
    assert first.provider is same.provider


def test_a_snapshot_ends_when_nobody_holds_it() -> None:
    """Without the collector, which would come for it in a turn of the loop, and walk all there is."""
    given = compact_of(([PROVIDER], rows(20), []))
    gc.disable()
    try:
        snapshot = finished(assembled(given, {"P_KEY": "k"}))
        joined = snapshot.with_listed({"p": Listed(models={})})
        assert snapshot.facts_of("p", "model") is None
        ended = [weakref.ref(snapshot), weakref.ref(joined)]
        del snapshot, joined
        assert [each() for each in ended] == [None, None]
    finally:
        gc.enable()
