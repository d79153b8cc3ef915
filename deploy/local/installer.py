"""What installs packages into a virtual environment: uv where its wheel can be had, else pip.

uv does not read pip's configuration, so that what pip is told of indexes, certificates and time limits is passed on, in
the environment, where no list of processes shows it. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_LIMIT_S: Final = 120.0
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
"""pip's settings, as uv's variables, with what parts several values there."""
_RANKS: Final = ("global", "install", ":env:")
"""Where pip finds a setting; a later one wins."""


def uv(python: Path) -> Path | None:
    """Return the uv of an environment, None where there is none."""
    program = python.with_name("uv")
    return program if program.exists() and os.environ.get("MOA_INSTALLER", "uv") == "uv" else None


def fetch_uv(python: Path, lock: Path) -> Path | None:
    """Install the locked uv by pip; return it, or None where it cannot be had or `MOA_INSTALLER=pip` wants none."""
    if os.environ.get("MOA_INSTALLER", "uv") == "uv":
        pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps")
        line = (*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock))
        try:
            subprocess.run(line, capture_output=True, check=False, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            return None
    return uv(python)


def line(python: Path) -> tuple[str, ...]:
    """Return the command that installs what is put behind it: requirements and options that pip and uv share."""
    program = uv(python)
    if program is not None:
        return (str(program), "pip", "install", "--python", str(python))
    return (str(python), "-m", "pip", "--disable-pip-version-check", "install")


def environment(python: Path) -> dict[str, str]:
    """Return the environment for that command. What is set for uv already stays."""
    asked = (str(python), "-m", "pip", "config", "list")
    output = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_LIMIT_S).stdout
    # Exact versions and hashes are asked for: which index offers a file does not matter.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **translated(output), **os.environ}


def translated(output: str) -> dict[str, str]:
    """Return pip's settings, as `pip config list` prints them, as uv's variables."""
    results: dict[str, str] = {}
    for rank in _RANKS:
        for name, value in re.findall(rf"^{rank}\.([a-z-]+)='(.*)'$", output, re.MULTILINE):
            if name in _WORDS:
                variable, between = _WORDS[name]
                results[variable] = between.join(value.split())
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Install locks by their names into the environment that runs this, or remove packages from it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.installer", description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove packages")
    parser.add_argument("names", nargs="+", help="locks (`base`), or packages to remove")
    given = parser.parse_args(arguments)
    python, locks = Path(sys.executable), Path(__file__).resolve().parents[2] / "requirements"
    if given.remove:
        return subprocess.run(
            (sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *given.names), check=False
        ).returncode
    fetch_uv(python, locks / "uv.txt")
    files = [part for name in given.names for part in ("-r", str(locks / f"{name}.txt"))]
    output = [*line(python), "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", *files]
    return subprocess.run(output, env=environment(python), check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
