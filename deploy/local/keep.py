"""What a local installation keeps in its state folder, and that only its owner can read it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

CREDENTIALS: Final = ("MOA_SERVICE_TOKEN", "MOA_KEY_PEPPER")
"""What the processes of an installation share, and what keys are kept by."""
LOG_KEYS: Final = "MOA_REQUEST_LOG_KEYS"
"""What encrypts prompts and answers in the request log."""

_OTHERS = 0o077


def close_to_others(root: Path, *, but: Path) -> None:
    """Take every right on a folder and what is in it from all but its owner, except on `but`.

    Installations made before were open to read. What lies in a closed folder is closed too: only open ones are
    walked, and each is closed after what is in it. What another user owns is left as it is.
    """
    pending, walked = [root], []
    while pending:
        folder = pending.pop()
        walked.append(folder)
        for entry in os.scandir(folder):
            path = Path(entry.path)
            if path == but or entry.is_symlink() or not _is_open(path):
                continue
            if entry.is_dir():
                pending.append(path)
            else:
                _close(path)
    for folder in reversed(walked):
        _close(folder)


def _is_open(path: Path) -> bool:
    try:
        result = path.lstat()
    except FileNotFoundError:
        return False
    return bool(result.st_mode & _OTHERS) and os.geteuid() in (0, result.st_uid)


def _close(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.chmod(path.stat().st_mode & 0o700)


def private_folder(path: Path) -> Path:
    """Return a folder, made where it is missing like those above it; what is made is its owner's alone."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def appending(path: Path) -> BinaryIO:
    """Open a file to append to; one that is made is its owner's alone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def write_private(path: Path, values: Mapping[str, str]) -> None:
    """Write `NAME=value` lines that only the owner can read, all or nothing."""
    private_folder(path.parent)
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


def internal_secrets(path: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the credentials that the processes share; made once, or taken from what is given then.

    What the file holds stays: losing the pepper makes every key invalid, losing a key of the request log what it
    encrypted unreadable. Given keys of the log come before the kept one.
    """
    known, given = read(path), given or {}
    wanted = {name: known.get(name) or given.get(name) or secrets.token_urlsafe(32) for name in CREDENTIALS}
    wanted[LOG_KEYS] = known.get(LOG_KEYS) or f"first:{secrets.token_hex(32)}"
    if wanted != known:
        write_private(path, wanted)
    return {**wanted, LOG_KEYS: _before(given.get(LOG_KEYS, ""), wanted[LOG_KEYS])}


def _before(given: str, kept: str) -> str:
    """Return the given keys, and behind them kept ones of other names: what these encrypted stays readable."""
    keys = [key.strip() for key in given.split(",") if key.strip()]
    names = {key.partition(":")[0] for key in keys}
    return ",".join([*keys, *(key for key in kept.split(",") if key.partition(":")[0].strip() not in names)])
