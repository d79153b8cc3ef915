"""A process starts while the catalogue's file has a fault: from the copy that it kept when the file was right."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.catalogue import Catalogue, CatalogueError, Environment, LastGood, Watched
from services.common.settings import CatalogueSettings

GOOD = """\
providers:
  - {id: p, adapter: openai, makes: text, base_url: "http://x"}
models:
  - {id: one, provider: p}
"""
BETTER = GOOD + "  - {id: two, provider: p}\n"
BAD = GOOD.replace("provider: p}", "provider: q}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def started(file: Path, kept: Path | None, process: str = "router") -> Watched:
    return Watched(file, {}, last_good=LastGood(kept, process, file))


def ids(catalogue: Catalogue) -> list[str]:
    return [model.id for model in catalogue.models]


def of_copy() -> tuple[float | None, float | None]:
    names = ("moa_catalogue_of_copy", "moa_catalogue_refused")
    return REGISTRY.get_sample_value(names[0]), REGISTRY.get_sample_value(names[1])


def put(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_start_at_a_bad_file_goes_by_the_copy_and_says_so(file: Path, kept: Path) -> None:
    """The fault, and since when the copy is right, are at hand for operators; log and metrics tell too."""
    assert ids(started(file, kept).now) == ["one"]
    assert of_copy() == (0, 0)
    file.write_text(BAD)
    with capture_logs() as lines:
        again = started(file, kept)
    assert ids(again.now) == ["one"]
    assert "model one: provider: there is no 'q'" in again.refused
    assert "the copy that was right at 2" in again.refused
    assert [line["why"] for line in lines if line["event"] == "catalogue.refused"] == [again.refused]
    assert of_copy() == (1, 1)


async def test_the_copy_is_of_the_last_change_that_was_right(file: Path, kept: Path) -> None:
    """A change is kept when it is taken over; one that is refused is not; and a mended file ends what the copy did."""
    watched = started(file, kept)
    watching = asyncio.create_task(watched.watch(every_s=0.01))
    try:
        async with asyncio.timeout(60):
            put(file, BETTER)
            while (copy := LastGood(kept, "router", file).copy()) is None or copy.text != BETTER.encode():
                await asyncio.sleep(0.01)
            put(file, BAD)
            while not watched.refused:
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    again = started(file, kept)
    assert ids(again.now) == ["one", "two"]
    watching = asyncio.create_task(again.watch(every_s=0.01))
    try:
        put(file, GOOD)
        async with asyncio.timeout(60):
            while again.refused:
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
    assert ids(again.now) == ["one"]
    assert of_copy() == (0, 0)


@pytest.mark.parametrize("since_start", [True, False])
async def test_a_stored_key_does_not_wait_until_the_file_is_mended(file: Path, kept: Path, since_start: bool) -> None:
    """Whether the file has its fault since before the start or since later, and however the key comes and goes."""
    text = BETTER.replace('"http://x"}', '"http://x", credentials: {api_key: P_KEY}}')
    file.write_text(text)
    started(file, kept)
    if since_start:
        put(file, BAD)
    environment = Environment({})
    watched = Watched(file, environment, last_good=LastGood(kept, "router", file))
    watching = asyncio.create_task(watched.watch(every_s=0.01))
    try:
        async with asyncio.timeout(60):
            if not since_start:
                put(file, BAD)
            while not watched.refused:
                await asyncio.sleep(0.01)
            for stored in ({"P_KEY": "sk"}, {}):
                environment.store(stored)
                await watched.followed(environment.version)
                assert watched.now.configured == (frozenset({"p"}) if stored else frozenset())
                assert (ids(watched.now), bool(watched.refused)) == (["one", "two"], True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_a_copy_that_is_not_as_it_was_written_is_none(file: Path, kept: Path) -> None:
    """One that is cut short, one that was edited, one of another file or process: the file's own fault is told then."""
    started(file, kept)
    (copy,) = kept.iterdir()
    whole = copy.read_bytes()
    elsewhere = file.with_name("other.yaml")
    for path in (file, elsewhere):
        path.write_text(BAD)
    for text in (whole[:-1], whole.replace(b"one", b"two"), whole[5:], b""):
        copy.write_bytes(text)
        with pytest.raises(CatalogueError, match=r"there is no 'q'$"):
            started(file, kept)
    copy.write_bytes(whole)
    for path, folder, process in ((elsewhere, kept, "router"), (file, kept, "text"), (file, None, "router")):
        with pytest.raises(CatalogueError, match=r"there is no 'q'$"):
            started(path, folder, process)
    assert ids(started(file, kept).now) == ["one"]


def test_a_copy_that_this_process_refuses_is_none(file: Path, kept: Path) -> None:
    """What is wrong with the file is told, not what is wrong with the copy."""
    started(file, kept)
    file.write_text(BAD)
    with pytest.raises(CatalogueError, match=r"there is no 'q'$"):
        Watched(file, {}, lambda catalogue: "an option", last_good=LastGood(kept, "router", file))


def test_a_folder_that_cannot_be_written_keeps_nobody_from_starting(file: Path, kept: Path) -> None:
    """As in a container whose file system is read-only: the log says so, once at each start."""
    kept.write_text("a file, where a folder is meant")
    with capture_logs() as lines:
        assert ids(started(file, kept).now) == ["one"]
    (line,) = [line for line in lines if line["event"] == "catalogue.not_kept"]
    assert (line["log_level"], line["folder"]) == ("warning", str(kept))


def test_what_has_not_changed_is_not_written_again(file: Path, kept: Path) -> None:
    """A start costs no write; the copy is its owner's alone, since a catalogue may have secrets in options."""
    started(file, kept)
    (copy,) = kept.iterdir()
    before = copy.stat()
    started(file, kept)
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (copy.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o600, 0o700)


def test_sources_of_models_count_from_the_folder_of_the_file(file: Path, kept: Path) -> None:
    """A model of one's own is found by the copy where the file says that it is."""
    (file.parent / "weights").mkdir()
    own = "providers:\n  - {id: p, adapter: inference, makes: text}\n"
    file.write_text(own + "models:\n  - {id: one, provider: p, load: {source: weights}}\n")
    started(file, kept)
    file.write_text(BAD)
    (model,) = started(file, kept).now.models
    assert model.load is not None
    assert model.load.source == str(file.parent / "weights")


def test_the_folder_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MOA_CATALOGUE_KEPT`; none is set where nobody names one."""
    assert CatalogueSettings(service_token="t" * 16).catalogue_kept is None  # type: ignore[arg-type]
    monkeypatch.setenv("MOA_CATALOGUE_KEPT", "/var/lib/moa")
    assert CatalogueSettings(service_token="t" * 16).catalogue_kept == Path("/var/lib/moa")  # type: ignore[arg-type]
