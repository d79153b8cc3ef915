"""Chains of fallbacks in the catalogue: what is admitted, and that a bad edit keeps the old state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.catalogue import CatalogueError, Watched, load

FILE = """
providers:
  - {id: p, adapter: openai, makes: text, base_url: "http://x"}
  - {id: q, adapter: openai, makes: text, base_url: "http://y"}
  - {id: i, adapter: openai, makes: image, base_url: "http://x"}
models:
  - {id: a, provider: p, fallback: [q/a, b]}
  - {id: a, provider: q, fallback: [p/a]}
  - {id: b, provider: q}
  - {id: drawn, provider: i}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(text)
    return path


def test_a_chain_is_by_id_or_full_id(tmp_path: Path) -> None:
    """In its order; two models may stand in for each other, for a chain is that of the asked model alone."""
    catalogue = load(written(tmp_path, FILE), {})

    def chain(name: str) -> list[str]:
        return [model.full_id for model in catalogue.fallbacks(catalogue.find(name))]

    assert chain("p/a") == ["q/a", "q/b"]
    assert chain("q/a") == ["p/a"]
    assert chain("b") == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("[q/a, b]", "[q/a, nobody]"), "model p/a: fallback: there is no 'nobody'"),
        (("[q/a, b]", "[a]"), "model p/a: fallback 'a' may be p/a or q/a"),
        (("[q/a, b]", "[b, p/a]"), "model p/a: its fallbacks come round to p/a"),
        (("[q/a, b]", "[b, q/a, q/b]"), "model p/a: its fallbacks come round to q/b"),
        (("[q/a, b]", "[drawn]"), "model p/a makes text, its fallback i/drawn image"),
        (("[q/a, b]", "b"), "fallback"),
    ],
)
def test_a_bad_chain_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    """The message names the model and what is wrong."""
    with pytest.raises(CatalogueError, match=why):
        load(written(tmp_path, FILE.replace(*change)), {})


async def test_a_bad_edit_keeps_the_old_chain(tmp_path: Path) -> None:
    """A running gateway goes on with what it has, and takes the next good edit."""
    path = written(tmp_path, FILE)
    watched = Watched(path, {})
    before = watched.now
    watching = asyncio.create_task(watched.watch(every_s=0.01))
    async with asyncio.timeout(20):
        with capture_logs() as lines:
            path.write_text(FILE.replace("[q/a, b]", "[q/a, nobody]"))
            while not any(line["event"] == "catalogue.refused" for line in lines):
                await asyncio.sleep(0.01)
        assert watched.now is before
        path.write_text(FILE.replace("[q/a, b]", "[b, q/a]"))
        while watched.now is before:
            await asyncio.sleep(0.01)
    watching.cancel()
    chain = watched.now.fallbacks(watched.now.find("p/a"))
    assert [model.full_id for model in chain] == ["q/b", "q/a"]
