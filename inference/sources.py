"""Where a model's files are: a folder, a GGUF file, or a hub's snapshot at a pinned revision."""

from __future__ import annotations

import glob
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from inference import hub
from services.catalogue import Load
from services.common import logs
from services.common.errors import ModelMisconfigured, Unavailable

_log = logs.get("sources")

Report = Callable[[str, float], None]
"""Told the stage and the part that is done."""

DOWNLOADED = 0.1
"""Which part of a model's loading its download counts for."""
_WHOLE_BYTES = 1 << 30
_END_BYTES = 1 << 20
_FIRST_PART = re.compile(r"-00001-of-\d{5}\.gguf$")
_HUB_FILE = re.compile(
    r"(?P<source>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<file>[^@]+\.safetensors))?(?:@(?P<revision>[\w.-]+))?"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files on this machine."""

    folder: str
    revision: str
    """The hub's commit, or `sha256:` and a digest of the weights."""
    size_bytes: int
    """Bytes of the weights' files."""
    gguf: str = ""
    """The name of the GGUF file in the folder, where the weights are one; of a split one its first part."""


def fetch(load: Load, report: Report) -> Source:
    """Return a model's folder, from the hub if it is not here.

    Only what a model is loaded from is fetched (`hub.unread`), and no weights in pickle files. What was fetched before
    is not fetched again, and serves when the hub cannot be reached; what broke off goes on.

    Raises ModelMisconfigured when neither this machine nor the hub has the source, or it has no safetensors, and
    Unavailable when the hub cannot be reached.
    """
    folder = Path(load.source)
    if gguf := gguf_in(folder):
        report("files", 0.05)
        parts = gguf_parts(gguf)
        return Source(str(gguf.parent), digest(parts), sum(path.stat().st_size for path in parts), gguf.name)
    if folder.is_dir():
        report("files", 0.05)
        weights = _weights(folder)
        return Source(str(folder), digest(weights), sum(path.stat().st_size for path in weights))
    report("download", 0.0)
    if load.file:
        return _fetched_gguf(load, report)
    total, skipped = _listed(load)
    at = _snapshot(
        load.source,
        load.revision,
        ignore_patterns=[*hub.OTHER_FORMS, *map(glob.escape, skipped)],
        tqdm_class=_progress(report, total),
    )
    return Source(str(at), at.name, sum(file.stat().st_size for file in _weights(at)))


def here(load: Load) -> Path:
    """Return where a model's files are on this machine: its source, or what was fetched of a hub's repository before;
    a path that is not there where nothing was."""
    place = Path(load.source)
    if place.exists() or not _HUB_FILE.fullmatch(load.source):
        return place
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(load.source, revision=load.revision or None, local_files_only=True))
    except errors.IncompleteSnapshotError as error:  # what is not read was not fetched
        return Path(error.snapshot_path)
    except Exception:
        return place


def reads_gguf(load: Load) -> bool:
    """Return whether a source is a GGUF file. Raises ModelMisconfigured for a folder with several."""
    return bool(load.file) or gguf_in(Path(load.source)) is not None


def _fetched_gguf(load: Load, report: Report) -> Source:
    """Return one GGUF file of a hub's repository, with all its parts, fetched as far as they are not here."""
    if not load.file.endswith(".gguf"):
        raise ModelMisconfigured("the model's file is not a GGUF file; name only the repository of other formats")
    wanted = _FIRST_PART.sub("-*-of-*.gguf", glob.escape(load.file))
    at = _snapshot(
        load.source,
        load.revision,
        allow_patterns=[wanted],
        tqdm_class=_progress(report, _size_of(load, wanted)),
    )
    file = at / load.file
    if not file.is_file():
        raise ModelMisconfigured("the hub's repository does not have the file that the catalogue names")
    parts = gguf_parts(file)
    return Source(str(file.parent), at.name, sum(part.stat().st_size for part in parts), file.name)


def _size_of(load: Load, wanted: str) -> int:
    """Return the bytes of a repository's files of a pattern; 0: the hub does not say."""
    from huggingface_hub import HfApi

    try:
        hub_model = HfApi().model_info(load.source, revision=load.revision or None, files_metadata=True)
    except Exception:
        return 0
    return sum(file.size or 0 for file in hub_model.siblings or [] if fnmatch(file.rfilename, wanted))


def gguf_in(place: Path) -> Path | None:
    """Return the GGUF file that a source means: itself, or the only one of a folder without safetensors; None: neither.

    Raises ModelMisconfigured for a folder with several.
    """
    if place.suffix == ".gguf" and place.is_file():
        return place
    found = sorted(place.glob("*.gguf")) if place.is_dir() else []
    if not found or any(place.rglob("*.safetensors")):
        return None
    if len(found) > 1 and not _FIRST_PART.search(found[0].name):
        raise ModelMisconfigured("the model's folder has several GGUF files; its source must name one")
    return found[0]


def gguf_parts(gguf: Path) -> list[Path]:
    """Return all files of a GGUF file that may be the first of several."""
    return sorted(gguf.parent.glob(_FIRST_PART.sub("-*-of-*.gguf", glob.escape(gguf.name))))


def fetch_adapter(place: str, beside: Path) -> Path:
    """Return a LoRA's file or folder.

    `place` is a path relative to the model's folder, else `owner/name[/file][@revision]` of the hub.

    Raises as `fetch` does.
    """
    path = beside / place
    found = _HUB_FILE.fullmatch(place)
    if path.exists() or found is None:
        return path
    wanted = glob.escape(found["file"]) if found["file"] else "*.safetensors"
    at = _snapshot(found["source"], found["revision"] or "", allow_patterns=[wanted])
    return at / found["file"] if found["file"] else at


def _snapshot(source: str, revision: str, **which: Any) -> Path:
    """Return the folder of a hub repository's files, fetched as far as they are not here. Raises as `fetch`."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision or None, **which))
    except Exception as error:
        _log.error("source.absent", source=source, revision=revision, why=type(error).__name__)
        if isinstance(error, errors.RevisionNotFoundError):
            raise ModelMisconfigured("the hub does not have the revision that the catalogue pins") from error
        if isinstance(error, errors.GatedRepoError):
            raise ModelMisconfigured("the hub gives the model's source only to those whom its owner lets in") from error
        if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
            raise ModelMisconfigured("the model's source is no folder here, and the hub does not have it") from error
        broken = "the model's source is no folder here, and the hub could not be reached or broke off"
        raise Unavailable(broken) from error


def _weights(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise ModelMisconfigured(
            "the model's source has no safetensors, and weights in pickles are not loaded; `file` names a GGUF file"
        )
    return files


def _listed(load: Load) -> tuple[int, list[str]]:
    """Ask the hub how many bytes of a source are read, and which of its files are not.

    0 and none: it says nothing, and the download will tell why.
    """
    from huggingface_hub import HfApi, hf_hub_download

    try:
        hub_model = HfApi().model_info(load.source, revision=load.revision or None, files_metadata=True)
        files = {file.rfilename: file.size or 0 for file in hub_model.siblings or []}
        parts = None
        if hub.PIPELINE in files:
            parts = json.loads(Path(hf_hub_download(load.source, hub.PIPELINE, revision=hub_model.sha)).read_text())
    except Exception:
        return 0, []
    adapters = tuple(map(str, dict(load.options.get("loras", {})).values()))
    skipped = hub.unread(files, parts, str(load.options.get("variant", "")))
    skipped = [file for file in skipped if file not in adapters and str(PurePosixPath(file).parent) not in adapters]
    read = {f for f in files if f not in skipped and not any(fnmatch(f, form) for form in hub.OTHER_FORMS)}
    return sum(files[file] for file in read), skipped


def _progress(report: Report, total: int) -> Any:
    """Return a progress bar's class that reports instead: how many bytes have come, each percent of `total`."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts = total and kwargs.get("name") == "huggingface_hub.snapshot_download"
            self._reported = 0
            self._updating = threading.Lock()
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            with self._updating:  # several files come at once: what is reported only grows
                self.n += n or 0
                if self._counts and (percent := min(100, int(100 * self.n / total))) > self._reported:
                    self._reported = percent
                    report(f"download, {self.n / 1e6:.1f} of {total / 1e6:.1f} MB", DOWNLOADED * percent / 100)

    return Bar


def digest(weights: list[Path]) -> str:
    """Return a digest of weight files: of every byte up to 1 GiB in all, beyond that of sizes, heads and tails."""
    total = sum(path.stat().st_size for path in weights)
    state = hashlib.sha256()
    for path in weights:
        size = path.stat().st_size
        state.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if total <= _WHOLE_BYTES:
                while block := file.read(1 << 20):
                    state.update(block)
            else:
                state.update(file.read(_END_BYTES))
                file.seek(max(0, size - _END_BYTES))
                state.update(file.read(_END_BYTES))
    return f"sha256:{state.hexdigest()[:32]}"
