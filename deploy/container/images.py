"""What the images begin with, of which commit they are, and what they must not have.

The Dockerfile names the one that ours begin with, docker-compose.yml the database's: each is named there alone.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = ROOT / "deploy" / "container" / "Dockerfile"
UNWANTED: Final = (
    *("cc", "c++", "gcc", "g++", "clang", "tcc", "as", "ld", "make", "cmake", "rustc", "cargo", "go", "protoc", "buf"),
    "uv",
)
"""Programs that compile, and our installer, which none of our images has on its path."""
_HUB: Final = "docker.io/library/"


def python_image() -> str:
    """Return the image that ours begin with."""
    (name,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    return str(name)


def database_image() -> str:
    """Return the image of the database."""
    compose = msgspec.yaml.decode((ROOT / "docker-compose.yml").read_bytes())
    name = str(compose["services"]["postgres"]["image"])
    return name if "/" in name else f"{_HUB}{name}"


PYTHON_IMAGE: Final = python_image()
DATABASE_IMAGE: Final = database_image()


class Revision(NamedTuple):
    """Of which commit an image is, and when that was made, in seconds since 1970."""

    name: str
    time: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of a build that say so."""
        values = {"SOURCE_DATE_EPOCH": self.time, "MOA_REVISION": self.name}
        return tuple(word for name, value in values.items() for word in ("--build-arg", f"{name}={value}"))


def revision() -> Revision:
    """Return the commit that is checked out; an unnamed one of 2000 where there is no git."""
    line = ("git", "log", "-1", "--format=%H %ct")
    try:
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return Revision("", "946684800")
    name, _, made_at = done.stdout.strip().partition(" ")
    return Revision(name, made_at) if done.returncode == 0 else Revision("", "946684800")
