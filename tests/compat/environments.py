"""The environments of the clients, under `build/compat`: each with one client, as published, in pinned versions.

A Python client has a lock `locks/NAME.txt`, whose first line says what was asked for; a client for Node has a folder
`locks/node-NAME` with npm's two files. `python -m tests.compat lock NAME…` writes them anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from deploy.local import installer
from deploy.local.stack import REPOSITORY

LOCKS: Final = Path(__file__).parent / "locks"
FOLDER: Final = REPOSITORY / "build" / "compat"
_UV_LOCK: Final = REPOSITORY / "requirements" / "uv.txt"
_LIMIT_S: Final = 420
_STAMP: Final = "installed.lock"


class Unavailable(Exception):
    """An environment cannot be had here. The message says why."""


def python(name: str) -> Path:
    """Return the interpreter of a client for Python, installed if it is not yet. Raises Unavailable."""
    folder, lock = FOLDER / name, LOCKS / f"{name}.txt"
    interpreter = folder / "bin" / "python"
    if _stamped(folder, lock.read_bytes()):
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    uv = _uv()
    _done([str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)])
    _done([str(uv), "pip", "install", "--quiet", "--no-deps", "--python", str(interpreter), "-r", str(lock)])
    (folder / _STAMP).write_bytes(lock.read_bytes())
    return interpreter


def node(name: str) -> Path:
    """Return the folder of a client for Node, installed if it is not yet. Raises Unavailable."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("node and npm are not on this machine")
    folder, source = FOLDER / f"node-{name}", LOCKS / f"node-{name}"
    lock = (source / "package-lock.json").read_bytes()
    if _stamped(folder, lock):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    try:
        _done(["npm", "ci", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts"], folder)
    except Unavailable:
        shutil.rmtree(folder)
        raise
    (folder / _STAMP).write_bytes(lock)
    return folder


def version(lock: str, package: str) -> str:
    """Return the pinned version of a package; of npm's, where the lock is a folder's name."""
    if (LOCKS / lock).is_dir():
        found = json.loads((LOCKS / lock / "package-lock.json").read_bytes())
        return str(found["packages"][f"node_modules/{package}"]["version"])
    pinned = dict(
        line.split("==") for line in (LOCKS / f"{lock}.txt").read_text().splitlines() if not line.startswith("#")
    )
    return pinned[package].split()[0]


def lock(name: str) -> None:
    """Pin a client's newest versions in its lock. Raises Unavailable."""
    source = LOCKS / name
    if source.is_dir():
        asked = json.loads((source / "package.json").read_bytes())
        newest = [f"{each}@latest" for each in asked["dependencies"]]
        options = ["--package-lock-only", "--save-exact", "--no-audit", "--no-fund", "--ignore-scripts"]
        _done(["npm", "install", *options, "--omit-lockfile-registry-resolved", *newest], source)
        return
    path = LOCKS / f"{name}.txt"
    head = path.read_text().splitlines()[0]
    uv = [str(_uv()), "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--no-emit-index-url"]
    done = _done([*uv, "--python", sys.executable, "-"], given="\n".join(head.removeprefix("#").split()))
    path.write_text(f"{head}\n{done}")


def _stamped(folder: Path, lock: bytes) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_bytes() == lock


def _uv() -> Path:
    """Return the product's uv, else one of our own: the product's environment may have been installed by pip."""
    python = FOLDER / "tools" / "bin" / "python"
    found = installer.uv(Path(sys.executable)) or installer.uv(python)
    if found is None:
        _done([sys.executable, "-m", "venv", str(FOLDER / "tools")])
        found = installer.fetch_uv(python, _UV_LOCK)
    if found is None:
        raise Unavailable("uv cannot be installed")
    return found


def _done(command: Sequence[str], folder: Path | None = None, *, given: str = "") -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} took longer than {_LIMIT_S} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise Unavailable(f"{Path(command[0]).name}: {words[:200]}")
    return done.stdout


def environment() -> Mapping[str, str]:
    """Return the environment of what installs: pip's settings in uv's words too."""
    return {**installer.environment(Path(sys.executable)), "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "hardlink")}
