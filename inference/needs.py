"""How much memory a model will take, told from its files before it is loaded, and how much there is."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from inference import sources
from inference.options import TextOptions
from services.catalogue import Load, Model

_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_HALF: Final = frozenset({"float16", "bfloat16", "int8"})
"""Formats of two bytes, or that are loaded so before they are narrowed."""
_CACHE_BYTES: Final = 2
"""Of a number in llama.cpp's key-value cache."""
_GGUF_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_WHOLE: Final = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_GGUF_STRING: Final = 8
_GGUF_ARRAY: Final = 9


def needed_bytes(model: Model) -> int:
    """Return the bytes that a model's weights, and a GGUF model's cache, will take.

    0 where its files are not here or cannot be read: loading them will tell why.
    """
    try:
        return _needed(model)
    except (OSError, ValueError, LookupError, TypeError, struct.error):
        return 0


def _needed(model: Model) -> int:
    load = model.load
    assert load is not None
    place = sources.here(load)
    gguf = place / load.file if load.file else sources.gguf_in(place)
    if gguf is not None:
        parts = sources.gguf_parts(gguf)
        return sum(part.stat().st_size for part in parts) + _cache_bytes(gguf, load, model.context_tokens)
    return sum(_loaded_bytes(file, load) for file in place.rglob("*.safetensors")) if place.is_dir() else 0


def available_bytes() -> int | None:
    """Return the bytes that can still be had without swapping, within this process's group; None: it cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stats = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return found
    return found if limit == "max" else min(found, int(limit) - used + int(stats.get("inactive_file", 0)))


def _loaded_bytes(file: Path, load: Load) -> int:
    """Return what a safetensors file's numbers take in the format that they are computed in."""
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(min(size, 100 << 20)))
    total = 0
    wide = 2 if load.dtype in _HALF else 4
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        stored = tensor["data_offsets"][1] - tensor["data_offsets"][0]
        total += math.prod(tensor["shape"]) * wide if tensor["dtype"] in _FLOATS else stored
    return total


def _cache_bytes(file: Path, load: Load, context: int) -> int:
    """Return the size of llama.cpp's key-value cache: 0 for a file that does not say its shape."""
    with file.open("rb") as opened:
        stats = _shape(opened)
    layers, heads = stats.get("block_count", 0), stats.get("attention.head_count", 0)
    if not layers or not heads:
        return 0
    wide = stats.get("attention.key_length") or stats.get("embedding_length", 0) // heads
    trained = stats.get("context_length", 0)
    tokens = msgspec.convert(load.options, TextOptions).rows * min(context or trained, trained)
    return 2 * layers * stats.get("attention.head_count_kv", heads) * wide * tokens * _CACHE_BYTES


def _shape(file: BinaryIO) -> dict[str, int]:
    """Read the whole numbers of a GGUF header up to the vocabulary, by their names without the architecture's.

    The format: github.com/ggml-org/ggml, docs/gguf.md.
    """
    magic, _, _, count = struct.unpack("<4sIQQ", file.read(24))
    found: dict[str, int] = {}
    if magic != b"GGUF":
        return found
    for _ in range(count):
        name = _string(file).decode(errors="replace")
        (kind,) = struct.unpack("<I", file.read(4))
        if kind == _GGUF_STRING:
            _string(file)
        elif kind == _GGUF_ARRAY:
            _skip(file)
        elif kind in _GGUF_WHOLE:
            (found[name.partition(".")[2]],) = struct.unpack(_GGUF_WHOLE[kind], file.read(_GGUF_SIZES[kind]))
        else:
            file.seek(_GGUF_SIZES[kind], 1)
    return found


def _string(file: BinaryIO) -> bytes:
    (size,) = struct.unpack("<Q", file.read(8))
    return file.read(size)


def _skip(file: BinaryIO) -> None:
    kind, count = struct.unpack("<IQ", file.read(12))
    if kind == _GGUF_STRING:
        for _ in range(count):
            _string(file)
    else:
        file.seek(_GGUF_SIZES[kind] * count, 1)
