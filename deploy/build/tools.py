"""The programs that checking needs beside Python's packages: tell which are missing and how to get them.

`python3 -m deploy.build.tools` tells; with `--install` it installs them from Debian's packages. Only the standard
library is used: it runs before set-up.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program under any of some names, and the Debian package that has it."""

    names: tuple[str, ...]
    package: str
    use: str
    needed: bool = True
    """Whether checking fails without it. Others are installed along with these; their tests skip without them."""

    @property
    def present(self) -> bool:
        """Whether it is on the PATH."""
        return any(shutil.which(name) is not None for name in self.names)


class _Venv(Tool):
    @property
    def present(self) -> bool:
        return all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip"))


TOOLS: Final[tuple[Tool, ...]] = (
    _Venv(names=("venv",), package=f"python3.{sys.version_info.minor}-venv", use="the virtual environment"),
    Tool(names=("make",), package="make", use="every target"),
    Tool(names=("git",), package="git", use="the contracts' history"),
    Tool(names=("curl",), package="curl", use="the samples of the documents, HTTP/2 requests"),
    Tool(names=("jq",), package="jq", use="the samples of the documents"),
    Tool(names=("node",), package="nodejs", use="the samples in JavaScript, the lint of the OpenAPI document"),
    Tool(names=("npm",), package="npm", use="the OpenAI client for Node, the lint of the OpenAPI document"),
    Tool(names=("g++",), package="g++", use="`compile: true` of image models on the CPU"),
    Tool(
        names=("chromium", "chromium-browser", "google-chrome"),
        package="chromium",
        use="the console, the API page and gRPC-Web in a browser",
    ),
    Tool(names=("pgbouncer",), package="pgbouncer", use="the tests behind a pooler", needed=False),
)

_APT: Final = ("apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300")
_LIMIT_S: Final = 900.0


def missing(tools: Sequence[Tool] = TOOLS) -> list[Tool]:
    """Return the tools that are not on this machine."""
    return [tool for tool in tools if not tool.present]


def sentence(tools: Sequence[Tool]) -> str:
    """Return what is missing, what each is for, and the command that installs them all."""
    lines = [f"{tool.names[0]} is missing; it is for {tool.use}" for tool in tools]
    packages = " ".join(tool.package for tool in tools)
    return "\n".join([*lines, f"Debian, Ubuntu: apt-get install --no-install-recommends {packages}"])


def install(tools: Sequence[Tool]) -> bool:
    """Install the tools' packages by apt-get; tell whether it succeeded."""
    if shutil.which("apt-get") is None:
        print("tools: there is no apt-get here", file=sys.stderr)
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = [tool.package for tool in tools]
    for line in ((*_APT, "update"), (*_APT, "install", "-y", "--no-install-recommends", *packages)):
        print("tools: " + " ".join(line), flush=True)
        try:
            done = subprocess.run(
                line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"tools: {error}", file=sys.stderr)
            return False
        if done.returncode != 0:
            print((done.stdout + done.stderr)[-4000:], file=sys.stderr)
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every tool that is needed is there, or was installed with `--install`."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.build.tools", description=__doc__)
    parser.add_argument("--install", action="store_true", help="install what is missing by apt-get, as root")
    options = parser.parse_args(arguments)
    absent = missing()
    needed = [tool for tool in absent if tool.needed]
    if needed and options.install and (install(absent) or (needed != absent and install(needed))):
        absent = missing()
    if any(tool.needed for tool in absent):
        print(sentence(absent), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
