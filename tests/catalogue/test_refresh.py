"""An operator's address tells newer facts: taken whole or not at all, kept, and in use without a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from moa.common.v1.usage_pb2 import Usage
from services.catalogue import (
    MOST_FACTS_BYTES,
    Book,
    CatalogueError,
    Refresh,
    Watched,
    fetching,
    load,
    shipped_facts,
    today,
)
from services.catalogue._kept import NAME

CATALOGUE = """
providers:
  - {id: cloud, adapter: openai, makes: text, base_url: "http://x", facts: openai}
models:
  - {id: mine, provider: cloud}
  - {id: priced, provider: cloud, prices: {input: 7}}
"""
PRICE = {"since": "2026-01-01", "input": 1_000_000_000}


def document(**models: Any) -> bytes:
    return msgspec.json.encode({"format": 1, "taken": "2026-11-29", "families": {"openai": models}})


class Address:
    """An HTTP server that answers with what it is told to, and an ETag."""

    def __init__(self) -> None:
        self.body = document(mine={"context_tokens": 1000, "prices": [PRICE]}, priced={"prices": [PRICE]})
        self.status = 200
        self.etag = '"1"'
        self.location = ""
        self.statuses: list[int] = []
        address = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                same = self.headers.get("If-None-Match") == address.etag != ""
                status = 304 if same else address.status
                address.statuses.append(status)
                self.send_response(status)
                if address.etag:
                    self.send_header("ETag", address.etag)
                if address.location:
                    self.send_header("Location", address.location)
                self.end_headers()
                if status == 200:
                    self.wfile.write(address.body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/facts.json?key=secret"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def address() -> Iterator[Address]:
    address = Address()
    yield address
    address.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.yaml"
    path.write_text(CATALOGUE)
    return path


def test_what_is_right_is_kept_and_asked_for_by_its_etag(address: Address, file: Path, tmp_path: Path) -> None:
    """The second time nothing is sent; rows have what it says, and what a row says wins."""
    kept = tmp_path / NAME
    assert [fetching.refresh(address.url, file, kept) for _ in range(2)] == [True, False]
    assert address.statuses == [200, 304]
    catalogue = load(file, {}, kept=(kept, address.url))
    mine, priced = catalogue.find("mine"), catalogue.find("priced")
    assert mine.context_tokens == 1000
    assert [price.input for model in (mine, priced) for price in model.price_list] == [10**9, 7 * 10**9]
    other = load(file, {}, kept=(kept, "http://127.0.0.1:9/other"))
    assert other.find("mine").context_tokens == 0, "what is kept of another address is not this one's"


def test_a_successor_may_be_a_model_that_ships(address: Address, file: Path, tmp_path: Path) -> None:
    """A document of one model is enough: what ships stays known beside it, at the next start too."""
    kept, ships = tmp_path / NAME, next(iter(Book(shipped_facts()).ids("openai")))
    address.body = document(mine={"context_tokens": 7, "retires": "2026-12-15", "successor": ships})
    assert fetching.refresh(address.url, file, kept)
    catalogue = load(file, {}, kept=(kept, address.url))
    assert (catalogue.find("mine").context_tokens, catalogue.book.fault) == (7, "")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (document(mine={"prices": [{**PRICE, "input": -1}]}), "openai model mine: prices.input"),
        (document(mine={"capabilities": ["vison"]}), "did you mean 'vision'?"),
        (b"[" * 100_000, ""),
        (b"<html>", "malformed"),
        (b" " * (MOST_FACTS_BYTES + 1), "more than the"),
    ],
)
def test_what_is_wrong_is_refused_whole_and_the_last_good_is_kept(
    address: Address, file: Path, tmp_path: Path, body: bytes, fault: str
) -> None:
    """Hostile numbers, unknown words, nesting, other things than JSON, and too much; the place is named."""
    kept = tmp_path / NAME
    fetching.refresh(address.url, file, kept)
    good = kept.read_bytes()
    address.body, address.etag = body, '"2"'
    with pytest.raises(CatalogueError, match=r"127\.0\.0\.1") as refused:
        fetching.refresh(address.url, file, kept)
    assert fault in str(refused.value)
    assert "secret" not in str(refused.value)
    assert kept.read_bytes() == good
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalogue.yaml", NAME]


def test_an_address_that_fails_or_sends_elsewhere_is_refused(address: Address, file: Path, tmp_path: Path) -> None:
    """No redirect is followed: the operator named one address, and nobody else."""
    kept = tmp_path / NAME
    for status, location in ((500, ""), (404, ""), (302, "http://127.0.0.1:9/"), (301, "file:///etc/passwd")):
        address.status, address.location = status, location
        with pytest.raises(CatalogueError, match=f"HTTP {status}"):
            fetching.refresh(address.url, file, kept)
    address.close()
    with pytest.raises(CatalogueError, match="refused"):
        fetching.refresh(address.url, file, kept)
    assert not kept.exists()


def test_a_kept_document_that_was_broken_since_is_left_out_and_named(
    address: Address, file: Path, tmp_path: Path
) -> None:
    """A start goes by what ships then, and says why."""
    kept = tmp_path / NAME
    fetching.refresh(address.url, file, kept)
    kept.write_bytes(kept.read_bytes()[:-5])
    catalogue = load(file, {}, kept=(kept, address.url))
    assert catalogue.find("mine").context_tokens == 0
    assert str(kept) in catalogue.book.fault


async def test_a_running_process_changes_over_and_what_has_begun_costs_what_it_did(
    address: Address, file: Path, tmp_path: Path
) -> None:
    """The new snapshot has the new price; who asked before pays the old one; a bad answer is shown, and changes
    nothing; the next start has the last good one while the address is away."""
    watched = Watched(file, {}, refresh=Refresh(address.url, every_s=0.6, folder=tmp_path / "kept"))
    assert watched.now.find("mine").price() is None
    watching = asyncio.create_task(watched.watch(every_s=0.01))
    try:
        async with asyncio.timeout(60):
            while watched.now.find("mine").price() is None:
                await asyncio.sleep(0.01)
            begun = watched.now.cost_on()
            dearer = [PRICE, {"since": today().isoformat(), "input": 2_000_000_000}]
            address.body, address.etag = document(mine={"prices": dearer}), '"2"'
            while len(watched.now.find("mine").price_list) < 2:
                await asyncio.sleep(0.01)
            usage = Usage(prompt_tokens=1000)
            assert begun(usage, "cloud", "mine") == 1_000_000
            assert watched.now.cost_on()(usage, "cloud", "mine") == 2_000_000
            address.body, address.etag = document(mine={"context_tokens": -1}), '"3"'
            while not watched.facts_refused:
                await asyncio.sleep(0.01)
        assert "mine: context_tokens" in watched.facts_refused
        assert REGISTRY.get_sample_value("moa_facts_refused") == 1
        assert len(watched.now.find("mine").price_list) == 2
    finally:
        watching.cancel()
    again = Watched(file, {}, refresh=Refresh(address.url, every_s=60, folder=tmp_path / "kept"))
    assert len(again.now.find("mine").price_list) == 2
