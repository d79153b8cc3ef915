"""The packages that facts are distilled from: fetched as locked or newest, and read without being installed or run."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

import msgspec

from deploy.facts.abilities import Table
from deploy.facts.dated_prices import Dated, read
from services.catalogue import Source

REPOSITORY: Final = Path(__file__).resolve().parents[2]
LOCK: Final = REPOSITORY / "requirements" / "facts.txt"
PRICES: Final = "genai-prices"
TABLE: Final = "litellm"

_DATA: Final = {PRICES: "genai_prices/data.py", TABLE: "litellm/model_prices_and_context_window_backup.json"}
_MOST_BYTES: Final = 64 * 1024 * 1024
_LIMIT_S: Final = 300.0
# One wheel of each whatever machine this is: its data are the same in all.
_ANY_MACHINE: Final = ("--python-version", "3.12", "--implementation", "cp", "--abi", "abi3")
_PLATFORM: Final = ("--platform", "manylinux_2_28_x86_64")
_PINNED: Final = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)(?:\s*\\\s*--hash=sha256:([0-9a-f]{64}))", re.MULTILINE)


class Unreachable(Exception):
    """The packages cannot be had; the message says what pip says."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the packages say."""

    prices: dict[str, Dated]
    table: Table
    sources: tuple[Source, ...]


def pinned() -> dict[str, tuple[str, str]]:
    """Return the version and hash of each locked package."""
    return {name: (version, sha256) for name, version, sha256 in _PINNED.findall(LOCK.read_text())}


def fetched(*, newest: bool) -> Read:
    """Fetch the packages, as locked or the newest, by pip as it is set up here. Raises Unreachable."""
    wanted = tuple(_DATA) if newest else ("--require-hashes", "--requirement", str(LOCK))
    with tempfile.TemporaryDirectory() as folder:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
        command = (*pip, "--only-binary", ":all:", *_ANY_MACHINE, *_PLATFORM, "--dest", folder, *wanted)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"pip took longer than {_LIMIT_S:g} s") from None
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unreachable((errors or ["pip failed"])[0])
        wheels = {path.name.partition("-")[0].replace("_", "-"): path for path in Path(folder).glob("*.whl")}
        return Read(
            prices=read(_text(wheels[PRICES], _DATA[PRICES]).decode()),
            table=msgspec.json.decode(_text(wheels[TABLE], _DATA[TABLE]), type=dict[str, dict[str, object]]),
            sources=tuple(_source(name, wheels[name]) for name in _DATA),
        )


def lock_text(sources: tuple[Source, ...]) -> str:
    """Return the lock that pins these."""
    comments = [line for line in LOCK.read_text().splitlines() if line.startswith("#")]
    pins = [f"{one.name}=={one.version} \\\n    --hash=sha256:{one.sha256}" for one in sources]
    return "\n".join([*comments, *pins]) + "\n"


def _text(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        if archive.getinfo(name).file_size > _MOST_BYTES:
            raise Unreachable(f"{name} is larger than {_MOST_BYTES} bytes")
        return archive.read(name)


def _source(name: str, wheel: Path) -> Source:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(archive.read(metadata).decode(errors="replace").partition("\n\n")[0])
    licence = str(header.get("License-Expression") or header.get("License") or "")[:100]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Source(name=name, version=str(header["Version"]), sha256=digest, licence=licence)
