"""Where a model's files are: a folder, or a hub's snapshot at a pinned revision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.common import logs
from services.common.catalogue import Load
from services.common.errors import Unavailable

_log = logs.get("sources")

_WHOLE_BYTES = 1 << 30
_END_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files on this machine."""

    folder: str
    revision: str
    """The hub's commit, or `sha256:` and a digest of the weights."""
    size_bytes: int
    """Bytes of the weights' files."""


def fetch(load: Load, report: Callable[[str, float], None]) -> Source:
    """Give a model's folder, from the hub if it is not here. Weights in pickle files are not fetched.

    Raises Unavailable when the source is no folder and the hub does not have it or cannot be reached.
    """
    folder = Path(load.source)
    if folder.is_dir():
        report("files", 0.05)
        weights = sorted(folder.rglob("*.safetensors"))
        return Source(str(folder), digest(weights), sum(path.stat().st_size for path in weights))
    from huggingface_hub import snapshot_download

    report("download", 0.0)
    try:
        at = snapshot_download(
            load.source,
            revision=load.revision or None,
            ignore_patterns=["*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl", "*.onnx", "*.msgpack", "*.h5"],
        )
    except Exception as error:
        _log.error("source.absent", source=load.source, revision=load.revision, why=type(error).__name__)
        raise Unavailable("the model's source is no folder here, and the hub did not give it") from error
    path = Path(at)
    return Source(at, path.name, sum(p.stat().st_size for p in path.rglob("*.safetensors")))


def digest(weights: list[Path]) -> str:
    """Give a digest of weight files: of every byte up to 1 GiB in all, beyond that of sizes, heads and tails."""
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
