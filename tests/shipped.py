"""The catalogue that ships, read once a process: its YAML takes longer to parse than most tests to run."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from services.catalogue import Catalogue, load

SHIPPED = Path("gateway/catalogue.yaml")
Row = dict[str, Any]


@functools.cache
def _decoded() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = msgspec.yaml.decode(SHIPPED.read_bytes())
    return found


def rows() -> dict[str, list[Row]]:
    """Return the file's `providers` and `models`, which the caller may change."""
    return copy.deepcopy(_decoded())


def rows_of(provider: str) -> tuple[list[Row], list[Row]]:
    """Return a provider's row and those of its models, which the caller may change."""
    file = _decoded()
    own = [row for row in file["providers"] if row["id"] == provider]
    return copy.deepcopy((own, [row for row in file["models"] if row["provider"] == provider]))


@functools.cache
def catalogue() -> Catalogue:
    """Return the catalogue as it is where no provider has credentials."""
    return load(SHIPPED, {})


def watched() -> Any:
    """Return the same, as `Watched` holds it."""
    return SimpleNamespace(now=catalogue())


def written(path: Path, providers: Sequence[Mapping[str, object]], models: Sequence[Mapping[str, object]]) -> None:
    """Write a catalogue's file; JSON is YAML, and far faster to write and to read."""
    path.write_bytes(msgspec.json.encode({"providers": list(providers), "models": list(models)}))
