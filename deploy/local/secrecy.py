"""Which variables of the launcher's own environment a process inherits: no secret that it has no use for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local.topology import Process

_SECRET: Final = re.compile(
    r"(?:^|_)(?:KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|PAT|PEPPER|DSN)(?:_|$)"
    r"|DATABASE_URL|^PG[A-Z]+$|^AWS_"
)
"""Names of variables that hold secrets, by what people call them."""
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,}")


def inherited(process: Process, given: Mapping[str, str]) -> dict[str, str]:
    """Return what a process inherits of `given`.

    Secrets are what is called like one and what the catalogue names. Processes that ask providers inherit all but the
    gateway's own; the others those that their row of the topology names.
    """
    named = _named(Path(given.get("MOA_CATALOGUE", "")))
    return {name: value for name, value in given.items() if _is_needed(process, name, given, named)}


def _is_needed(process: Process, name: str, given: Mapping[str, str], named: frozenset[str]) -> bool:
    of_catalogue = name in named or name.removesuffix("_FILE") in named
    if not of_catalogue and not _SECRET.search(name):
        return True
    if name in (*process.secrets, *process.optional):
        return True
    if process.providers:
        return of_catalogue or not (name.startswith(("MOA_", "PG")) or "DATABASE_URL" in name)
    return process.store and name.startswith("AWS_") and bool(given.get("MOA_STORE_BUCKET"))


def _named(catalogue: Path) -> frozenset[str]:
    """Return the words of the catalogue's file that may be names of variables."""
    try:
        return frozenset(_VARIABLE.findall(catalogue.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return frozenset()


def names_set(given: Mapping[str, str]) -> str:
    """Return the names of all variables that are set, for processes that decide by them which providers there are."""
    return ",".join(sorted(name for name, value in given.items() if value and _VARIABLE.fullmatch(name)))
