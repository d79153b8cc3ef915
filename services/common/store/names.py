"""Names of objects: unguessable, and telling whose they are."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from services.common.errors import NotFound

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_ODD = re.compile(r"[^A-Za-z0-9-]", re.ASCII)
_EXTENSION = re.compile(r"[a-z0-9]{1,8}", re.ASCII)

RANDOM_BYTES = 16
"""Randomness of a name: 128 bits, so that a name is no easier to guess than a key."""


def object_name(account: str, ext: str) -> str:
    """Make a fresh name, `{account}_{date}_{random}.{ext}`.

    Characters of `account` that a name cannot hold become `-`. Raises ValueError for an extension that is none.
    """
    if not _EXTENSION.fullmatch(ext):
        raise ValueError(f"not a file extension: {ext!r}")
    date = datetime.now(UTC).strftime("%Y%m%d")
    return f"{_owner(account)}_{date}_{secrets.token_hex(RANDOM_BYTES)}.{ext}"


def _owner(account: str) -> str:
    return (_ODD.sub("-", account).strip("-") or "nobody")[:100]


def owner_of(name: str) -> str:
    """Return the account that a name of `object_name` carries; empty for a name of another make."""
    parts = name.rsplit("_", 2)
    return parts[0] if len(parts) == 3 else ""


def owns(account: str, name: str) -> bool:
    """Return whether an object is an account's, by its name."""
    return bool(account) and owner_of(name) == _owner(account)


def is_name(name: str) -> bool:
    """Return whether this can be an object's name: one path segment of ordinary characters, not hidden."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def check_name(name: str) -> None:
    """Raise NotFound for what cannot name an object: nothing of such a name was ever stored."""
    if not is_name(name):
        raise NotFound("no such object")
