"""What each file of tests took when it was last recorded, and which costly fixtures it shares with others.

Recorded by `make test ARGS=--record`. Only the order of the files depends on it, so that old figures cost a little
time and break nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

PATH = Path(__file__).with_name("recorded.json")
UNKNOWN_S = 30.0
"""A file that was never recorded counts as long, and so starts early."""


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file: the seconds of all of its tests, and the costly fixtures that it uses."""

    seconds: float
    shares: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """Files that run one after another in one worker. `name` is that of one of them, or of what they share."""

    name: str
    seconds: float


def file_of(nodeid: str) -> str:
    """Return the file of a test, as its id names it."""
    return nodeid.partition("::")[0]


def read(path: Path = PATH) -> dict[str, File]:
    """Return what was recorded, by file; nothing where nothing was."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, File]) if path.exists() else {}


def write(found: Mapping[str, File], path: Path = PATH) -> None:
    """Write what was recorded, a line a file."""
    lines = [f'"{name}": {msgspec.json.encode(found[name]).decode()}' for name in sorted(found)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def units(files: Iterable[str], known: Mapping[str, File]) -> dict[str, Unit]:
    """Return the unit of each file: one of its own, or the one of all that share a costly fixture in a folder."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    wanted = dict.fromkeys(files)
    for file in wanted:
        for fixture in known[file].shares if file in known else ():
            above[top(file)] = top(f"{PurePosixPath(file).parent}:{fixture}")
    seconds: dict[str, float] = {}
    for file in wanted:
        seconds[top(file)] = seconds.get(top(file), 0.0) + (known[file].seconds if file in known else UNKNOWN_S)
    return {file: Unit(top(file), seconds[top(file)]) for file in wanted}
