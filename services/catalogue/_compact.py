"""The catalogue's rows on their way from whoever parses the file: checked, and quick to take in piece by piece.

Parsing YAML takes 0.2 ms a row, in one call that lets nothing else of its process run, and leaves its process ten times
what the rows themselves take. So a helper process reads the file, checks it, and hands over each row encoded.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from services.catalogue._error import CatalogueError
from services.catalogue._model import Model, Provider
from services.catalogue._route import Route


class Compact(Struct, frozen=True, array_like=True):
    """A checked file."""

    providers: tuple[Provider, ...]
    """As written: addresses and credentials are not settled."""
    models: tuple[Raw, ...]
    """One encoded row each."""
    routes: tuple[Route, ...] = ()
    facts: bytes = b""
    """The operator's document of facts that the rows were filled in with, beside what ships; empty: none."""
    facts_fault: str = ""
    """Why the document that is kept was left out; empty where it was not."""


REFUSED: Final = 3
"""The exit status that says that the file is bad; what was written is the reason."""
_READ_S: Final = 600.0
"""How long reading may take: on a machine that has other work, minutes."""
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Compact)
_ROW: Final = msgspec.msgpack.Decoder(Model)
_SHARED: Final = (
    *("provider", "capabilities", "aliases", "defaults", "limits", "image_tokens", "prices", "known_prices", "load"),
    *("allow", "deny", "assume_price"),
)
"""What rows have in common with others."""


Checked = tuple[list[Provider], list[Model], list[Route]]


def encoded(checked: Checked, facts: bytes = b"", facts_fault: str = "") -> bytes:
    """Return a checked file's rows as they are handed over."""
    return _ENCODER.encode((*checked, facts, facts_fault))


def compact_of(checked: Checked, facts: bytes = b"", facts_fault: str = "") -> Compact:
    """Return a checked file's rows as `read_apart` does."""
    return compact_from(encoded(checked, facts, facts_fault))


def compact_from(rows: bytes) -> Compact:
    """Return encoded rows as `read_apart` does."""
    return _DECODER.decode(rows)


def row_of(raw: Raw, shared: dict[Any, Any]) -> Model:
    """Return a row; what is equal in rows that were given the same `shared` is one object."""
    model = _ROW.decode(raw)
    for name in _SHARED:
        value = getattr(model, name)
        if value is not None:
            key = _ENCODER.encode(value) if isinstance(value, Mapping) or name in ("load", "limits") else value
            msgspec.structs.force_setattr(model, name, shared.setdefault(key, value))
    return model


def read_apart_now(path: Path, *kept: str) -> Compact:
    """Have another process read the file, and wait. `kept`: see `services.catalogue.reading`. Raises CatalogueError."""
    try:
        done = subprocess.run(  # noqa: S603  # this very program
            _command(path, *kept),
            env=helper_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_READ_S,
        )
    except subprocess.TimeoutExpired:
        raise CatalogueError(f"{path}: reading it took longer than {_READ_S:g} s") from None
    return _handed_over(path, done.returncode, done.stdout)


async def read_apart(path: Path, *kept: str) -> Compact:
    """Have another process read the file. Raises CatalogueError."""
    try:
        status, out = await run_apart(_command(path, *kept), helper_environment(), _READ_S)
    except TimeoutError:
        raise CatalogueError(f"{path}: reading it took longer than {_READ_S:g} s") from None
    return _handed_over(path, status, out)


async def run_apart(command: list[str], environment: dict[str, str], within_s: float) -> tuple[int, bytes]:
    """Return a helper process's exit status and output. Raises TimeoutError; however this ends, so does the process."""
    # Not the loop's own: that forks, and then gRPC's handlers of forks crash the child now and then.
    child = subprocess.Popen(  # noqa: ASYNC220, S603  # this very program; it takes milliseconds
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        out, _ = await asyncio.to_thread(child.communicate, timeout=within_s)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    return child.returncode, out


def _command(path: Path, *kept: str) -> list[str]:
    return [sys.executable, "-m", "services.catalogue.reading", str(path), *kept]


def helper_environment() -> dict[str, str]:
    """Return what the process needs to find this program: no secret of the environment concerns it."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(part or os.curdir for part in sys.path)}


def _handed_over(path: Path, status: int, out: bytes) -> Compact:
    if status == REFUSED:
        raise CatalogueError(out.decode(errors="replace"))
    if status:
        raise CatalogueError(f"{path}: the process that reads it ended with status {status}")
    return _DECODER.decode(out)
