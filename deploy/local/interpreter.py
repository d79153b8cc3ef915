"""The Pythons of this machine, and which of them the virtual environment is made of.

It is one that was built with optimizations, where there is one: a Python compiled without them (pyenv's default) takes
a quarter to a third more CPU for the same work than one with (`--enable-optimizations`: Debian's, python.org's, the
official images', uv's). Only the standard library is used.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import supported

_LIMIT_S: Final = 20.0
# Debian and Ubuntu build the program apart from the library, with optimizations, and sysconfig tells of the library.
_PROBE: Final = """
import importlib.util, json, sys, sysconfig
setting = sysconfig.get_config_var
apart = False
if sys.platform == "linux" and setting("Py_ENABLE_SHARED"):
    with open("/proc/self/maps") as maps:
        apart = not any("libpython" in line for line in maps)
print(json.dumps({
    "program": sys.executable,
    "version": list(sys.version_info[:3]),
    "implementation": sys.implementation.name,
    "free_threaded": bool(setting("Py_GIL_DISABLED")),
    "optimized": apart or "--enable-optimizations" in (setting("CONFIG_ARGS") or ""),
    "complete": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python of this machine.

    Args:
        program: Its path.
        version: As (3, 11, 2).
        supported: Whether Moa runs on it.
        optimized: Whether it was built with optimizations.
        complete: Whether it can make a virtual environment.
    """

    program: Path
    version: tuple[int, ...]
    supported: bool
    optimized: bool
    complete: bool

    @property
    def whole_version(self) -> str:
        """Return its version, such as 3.11.2."""
        return ".".join(map(str, self.version))

    @property
    def short_version(self) -> str:
        """Return its version, such as 3.11."""
        return ".".join(map(str, self.version[:2]))

    def __str__(self) -> str:
        return f"Python {self.whole_version} ({self.program})"


def look_at(program: Path | str) -> Interpreter | None:
    """Return what a Python says of itself; None where it says nothing that can be read."""
    try:
        asked = subprocess.run(
            [program, "-c", _PROBE],
            capture_output=True,
            text=True,
            check=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
        answer = json.loads(asked.stdout)
        major, minor, micro = map(int, answer["version"])
        return Interpreter(
            program=Path(answer["program"]),
            version=(major, minor, micro),
            supported=not supported.refusal((major, minor), answer["implementation"], answer["free_threaded"] is True),
            optimized=answer["optimized"] is True,
            complete=answer["complete"] is True,
        )
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return None


def on_path(version: str) -> Iterator[Path]:
    """Yield the programs of a version such as 3.13 in the folders of PATH, each once."""
    seen: set[str] = set()
    for folder in os.get_exec_path():
        program = Path(folder, f"python{version}")
        real = os.path.realpath(program)
        if folder and real not in seen and os.access(program, os.X_OK):
            seen.add(real)
            yield program


def of_pyenv(version: str) -> Iterator[Path]:
    """Yield the programs of a version such as 3.13 that pyenv has, the newest first."""

    def numbers(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.parents[1].name)]

    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin/python{version}"), key=numbers, reverse=True)


def of_version(version: str, programs: Iterable[Path]) -> Iterator[Interpreter]:
    """Yield those of some programs that are Pythons of a version such as 3.13 on which Moa runs."""
    for program in programs:
        found = look_at(program)
        if found is not None and found.supported and found.short_version == version:
            yield found


def installed() -> Iterator[Interpreter]:
    """Yield the supported Pythons on PATH, by version, the oldest first."""
    for major, minor in supported.versions():
        version = f"{major}.{minor}"
        yield from of_version(version, on_path(version))


def better(own: Interpreter, others: Iterable[Interpreter]) -> Interpreter | None:
    """Return a Python to take in place of one that was built without optimizations; None: there is none."""
    if own.optimized:
        return None
    return next((each for each in others if each.optimized and each.complete), None)


def found_better() -> tuple[Interpreter, Interpreter] | None:
    """Return the running Python, and one to take in its place; None: there is none, or `PYTHON` names who runs."""
    own = None if os.environ.get("PYTHON") else look_at(sys.executable)
    other = better(own, installed()) if own else None
    return (own, other) if own and other else None
