"""Which Python the virtual environment is made of: one that was built with optimizations, where there is one.

A Python compiled without them (pyenv's default) takes a quarter to a third more CPU for the same work than one with
(`--enable-optimizations`: Debian's, python.org's, the official images', uv's). Only the standard library is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
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
        optimized: Whether it was built with optimizations.
        complete: Whether it can make a virtual environment.
    """

    program: Path
    version: tuple[int, ...]
    optimized: bool
    complete: bool

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.program})"


def look_at(program: Path | str) -> Interpreter | None:
    """Return what a Python says of itself; None where it says nothing that can be read."""
    try:
        # Isolated: neither its user's packages nor this folder are looked at.
        done = subprocess.run(
            [program, "-I", "-c", _PROBE], capture_output=True, text=True, check=True, timeout=_LIMIT_S
        )
        answer = json.loads(done.stdout)
        version = tuple(map(int, answer["version"]))
        return Interpreter(Path(answer["program"]), version, answer["optimized"] is True, answer["complete"] is True)
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return None


def installed(path: str) -> Iterable[Interpreter]:
    """Return the supported Pythons in the folders of a PATH, by version, the oldest first."""
    seen: set[str] = set()
    for major, minor in supported.versions():
        for folder in path.split(os.pathsep):
            program = Path(folder, f"python{major}.{minor}")
            real = os.path.realpath(program)
            if folder and real not in seen and os.access(program, os.X_OK):
                seen.add(real)
                found = look_at(program)
                if found is not None and found.version[:2] == (major, minor):
                    yield found


def better(own: Interpreter, others: Iterable[Interpreter]) -> Interpreter | None:
    """Return a Python to take in place of one that was built without optimizations; None: there is none."""
    if own.optimized:
        return None
    return next((each for each in others if each.optimized and each.complete), None)


def found_better() -> tuple[Interpreter, Interpreter] | None:
    """Return the running Python, and one to take in its place; None: there is none, or `PYTHON` names who runs."""
    own = None if os.environ.get("PYTHON") else look_at(sys.executable)
    other = better(own, installed(os.environ.get("PATH", os.defpath))) if own else None
    return (own, other) if own and other else None
