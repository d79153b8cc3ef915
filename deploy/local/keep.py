"""What a local installation keeps in its state folder: its secrets, and the first key for scripts to source."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_private(path: Path, values: Mapping[str, str]) -> None:
    """Write `NAME=value` lines that only the owner can read, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines; a missing file is empty."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {pair[0].strip(): pair[1].strip() for pair in pairs}


def internal_secrets(path: Path) -> dict[str, str]:
    """Give the credentials that the processes share; made once. Losing the pepper makes every key invalid."""
    known = read(path)
    wanted = {name: known.get(name) or secrets.token_urlsafe(32) for name in ("MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER")}
    if wanted != known:
        write_private(path, wanted)
    return wanted
