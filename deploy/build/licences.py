"""Hold the licence of every locked package against those that the project may ship or use."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Final, cast

REPOSITORY = Path(__file__).resolve().parents[2]

PERMITTED: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0"),
        *("MIT-CMU", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "BSL-1.0", "Apache-2.0 WITH LLVM-exception"),
        # Copyleft of their own files only, which are used as they are published.
        *("LGPL-3.0-only", "MPL-2.0"),
    }
)
"""By their SPDX names. What binds the program that uses it (GPL, AGPL, SSPL, BUSL) is not among them."""

_SPDX: Final[Mapping[str, str]] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""What older packages write instead."""

_READ: Final[Mapping[str, str]] = {"kubernetes-validate": "Apache-2.0", "replicate": "Apache-2.0"}
"""Packages whose metadata name none, or no version of it: read in the LICENSE file that they ship."""


def expression(package: str, declared: Message) -> str:
    """Return a package's licence as an SPDX expression; the empty string where it names none."""
    if package in _READ:
        return _READ[package]
    if result := declared.get("License-Expression"):
        return str(result)
    classifiers = declared.get_all("Classifier", [])
    classifiers = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License ::")]
    # "DFSG approved" and "OSI Approved" alone tell of no licence.
    named = [_SPDX.get(name, name) for name in classifiers if name not in ("DFSG approved", "OSI Approved")]
    if named:
        return " AND ".join(named)
    lines = (declared.get("License") or "").strip().splitlines()
    return _SPDX.get(lines[0], lines[0]) if lines else ""


def permitted(licence: str) -> bool:
    """Return whether every part of an SPDX expression is permitted; of alternatives, one."""
    parts = re.split(r"\s+AND\s+", licence.replace("(", "").replace(")", "").strip())
    return all(PERMITTED.intersection(re.split(r"\s+OR\s+", part)) for part in parts)


_ONLY_READ: Final = "facts.txt"
"""Locks what data are read from and nobody installs; what is read of it names its licences (`deploy.facts`)."""


def locked(folder: Path) -> set[str]:
    """Return the names in the lock files of what is installed, and torch, which is chosen apart."""
    names = {"torch"}
    for lock in folder.glob("*.txt"):
        if lock.name == _ONLY_READ:
            continue
        names.update(re.findall(r"^([A-Za-z0-9_.-]+)==", lock.read_text(), re.MULTILINE))
    return names


def refusals(names: set[str]) -> Iterator[str]:
    """Yield a sentence for each package whose licence is not permitted or cannot be read."""
    for name in sorted(names):
        try:
            licence = expression(name, cast(Message, metadata.metadata(name)))
        except metadata.PackageNotFoundError:
            yield f"{name}: locked and not installed, so its licence cannot be read"
            continue
        if not permitted(licence):
            yield f"{name}: {licence or 'no licence is named'}"


def main() -> int:
    """Return 0 when every locked package's licence is permitted; else print which are not."""
    names = locked(REPOSITORY / "requirements")
    refused = list(refusals(names))
    for line in refused:
        print(f"licences: {line}", file=sys.stderr)
    if not refused:
        print(f"licences: those of {len(names)} packages are permitted")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
