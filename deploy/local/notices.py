"""What the processes' logs say that a person in front of the terminal should know: read as it is written, in words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

_LOOK_EVERY_S: Final = 2.0
_AGAIN_S: Final = 60.0
"""The same is told once in so long, with how often it came meanwhile."""
_LONGEST_LINE: Final = 64 * 1024
_MOST_TOLD: Final = 1000
_LEAST_BYTES: Final = 32 * 2**20
"""A disk with less is full: PostgreSQL writes ahead in files of 16 MiB."""
_DISK_FULL: Final = "disk.full"
"""In no log, for it could not be written."""


def _account_refused(line: Mapping[str, Any]) -> str:
    provider, words = line.get("provider"), line.get("words") or "it gave no reason"
    about = [f"HTTP {line['status']}" if line.get("status") else "no answer"]
    about += [f"{name} {line[name]}" for name in ("model", "account") if line.get(name)]
    what = (
        f"the gateway's account with the provider {provider} has no credit left"
        if line.get("why") == "credit"
        else f"the provider {provider} refuses the gateway's credentials"
    )
    return f"warning: {what} ({', '.join(about)}): {words}"


def _catalogue_refused(line: Mapping[str, Any]) -> str:
    return f"warning: the catalogue's change is refused, and what it was before is kept: {line.get('why')}"


def _catalogue_reloaded(line: Mapping[str, Any]) -> str:
    return f"the catalogue was read anew: {line.get('models')} models"


def _facts_refused(line: Mapping[str, Any]) -> str:
    return f"warning: what MOA_FACTS_URL says of models is refused, what was known before is kept: {line.get('why')}"


def _database_full(line: Mapping[str, Any]) -> str:
    return f"warning: the database's disk is full, and what needs room there is refused: {line.get('why')}"


def _database_lost(line: Mapping[str, Any]) -> str:
    words = str(line.get("words") or "it does not answer")
    pooler = (
        "; a pooler is in between: MOA_DATABASE_SESSION_URL names the database itself (docs/database.md)"
        if "unsupported startup parameter" in words
        else ""
    )
    return f"warning: the database cannot be reached, and who needs it is refused until it can: {words}{pooler}"


def _database_read_only(line: Mapping[str, Any]) -> str:
    return f"warning: the database takes no writes, so nobody is served whom it must be asked for: {line.get('why')}"


def _database_found(_: Mapping[str, Any]) -> str:
    return "the database is reached again"


def _replica_passed_over(line: Mapping[str, Any]) -> str:
    why = {
        "away": "it does not answer",
        "writes": "it takes writes itself, so it is no replica",
    }.get(str(line.get("why")), f"it refuses: {line.get('words')}")
    return f"warning: reports of spending are read from the database, not from its replica: {why}"


def _disk_full(line: Mapping[str, Any]) -> str:
    return (
        f"warning: the disk of {line.get('why')} is full: use cannot be recorded, requests are refused, logs end; "
        "once there is room it goes on by itself"
    )


def _store_apart(_: Mapping[str, Any]) -> str:
    return (
        "warning: tasks of another host share the database, and keep pictures where this one does not see them: "
        "their links are 404 here; give all hosts one bucket (MOA_STORE_BUCKET)"
    )


def _store_failed(line: Mapping[str, Any]) -> str:
    return (
        f"warning: pictures and tasks' outputs cannot be kept or read ({line.get('why')}): "
        "the disk, or MOA_STORE_BUCKET, its address, keys and authority (docs/operations.md)"
    )


def _certificate_expired(line: Mapping[str, Any]) -> str:
    names, until = ", ".join(map(str, line.get("names") or ())), line.get("until")
    return f"warning: the certificate of {names} expired at {until}: put a new one into MOA_SERVICE_TLS_DIR"


def _keys_unreadable(line: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, line.get("variables") or ()))
    return (
        f"warning: the stored keys of providers {names} cannot be read: they were sealed by a key that "
        "MOA_REQUEST_LOG_KEYS no longer names; add it again, or store them anew"
    )


def _caller_refused(line: Mapping[str, Any]) -> str:
    if line.get("why") == "credential":
        return "warning: a process shows another credential and is refused: all need the same MOA_SERVICE_TOKEN"
    names = ", ".join(map(str, line.get("names") or ())) or "no name"
    return f"warning: a process with a certificate for {names} is refused: that name may not call there"


def _credential_refused(line: Mapping[str, Any]) -> str:
    return f"warning: the credential's new file is refused, and what it was before is kept: {line.get('why')}"


def _ledger_unbalanced(line: Mapping[str, Any]) -> str:
    return f"warning: the ledger has a fault ({line.get('faults')}); `make audit` names the rows"


WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "provider.account_refused": _account_refused,
    "catalogue.refused": _catalogue_refused,
    "catalogue.reloaded": _catalogue_reloaded,
    "facts.refused": _facts_refused,
    "database.lost": _database_lost,
    "database.found": _database_found,
    "database.full": _database_full,
    "database.read_only": _database_read_only,
    _DISK_FULL: _disk_full,
    "replica.passed_over": _replica_passed_over,
    "store.apart": _store_apart,
    "store.failed": _store_failed,
    "certificate.expired": _certificate_expired,
    "caller.refused": _caller_refused,
    "credential.refused": _credential_refused,
    "provider_keys.unreadable": _keys_unreadable,
    "ledger.unbalanced": _ledger_unbalanced,
}
"""How each event is told."""
_FROM_ROUTER: Final = ("catalogue.refused", "catalogue.reloaded", "facts.refused", "provider_keys.unreadable")
"""Every process reads the catalogue, and some ask for stored keys; one of them is enough to tell."""
_NOT_KEPT_BACK: Final = frozenset(_FROM_ROUTER)


class Notices:
    """Reads logs from a thread of its own and tells what `WORDS` knows, until `stop`.

    Args:
        logs: The log of each process, by its name.
        tell: Told each line.
        clock: Monotonic seconds.
    """

    def __init__(
        self, logs: Mapping[str, Path], tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logs = dict(logs)
        self._tell = tell
        self._clock = clock
        # What earlier starts wrote is old news.
        self._places = {name: _Place.at_the_end_of(path) for name, path in self._logs.items()}
        self._printed: dict[tuple[Any, ...], tuple[float, int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read what was written until now, and end."""
        if self._thread.is_alive():
            self._ended.set()
            self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self.look()
        self.look()

    def look(self) -> None:
        """Tell what has been written since the last look."""
        for name in self._logs:
            with contextlib.suppress(OSError):
                for line in self._lines(name):
                    self._read(name, line)
        for folder in {path.parent for path in self._logs.values()}:
            with contextlib.suppress(OSError):
                if shutil.disk_usage(folder).free < _LEAST_BYTES:
                    self._tell_due({"event": _DISK_FULL, "why": str(folder)})

    def _lines(self, name: str) -> Iterable[bytes]:
        """Yield the whole lines that are new; one that is not whole yet, or too long, is left."""
        path, place = self._logs[name], self._places[name]
        with path.open("rb") as file:
            result = os.fstat(file.fileno())
            if place.inode != result.st_ino:
                # The file was begun anew: what it was before has its name with `.1`.
                with contextlib.suppress(OSError), path.with_name(path.name + ".1").open("rb") as before:
                    if os.fstat(before.fileno()).st_ino == place.inode:
                        yield from place.read(before)
                place.inode, place.at_byte = result.st_ino, 0
            elif result.st_size < place.at_byte:
                place.at_byte = 0
            yield from place.read(file)

    def _read(self, name: str, line: bytes) -> None:
        if not any(event.encode() in line for event in WORDS):
            return
        try:
            result = json.loads(line)
            event = result["event"]
        except (ValueError, TypeError, KeyError):
            return
        if event not in WORDS or (event in _FROM_ROUTER and name != "router"):
            return
        self._tell_due(result)

    def _tell_due(self, line: Mapping[str, Any]) -> None:
        event = line["event"]
        if event in _NOT_KEPT_BACK or self._is_due(line):
            self._tell(_shown(WORDS[event](line)) + self._times(line))

    def _is_due(self, line: Mapping[str, Any]) -> bool:
        """Return whether a line is to be told now; if not, count it."""
        key, now = _key(line), self._clock()
        at, missed = self._printed.get(key, (-_AGAIN_S, 0))
        if now - at >= _AGAIN_S:
            return True
        self._printed[key] = (at, missed + 1)
        return False

    def _times(self, line: Mapping[str, Any]) -> str:
        """Return how often a line that is told now was kept back before, in words, and begin to count anew."""
        key = _key(line)
        _, missed = self._printed.pop(key, (0.0, 0))
        if len(self._printed) >= _MOST_TOLD:
            self._printed.clear()
        self._printed[key] = (self._clock(), 0)
        return f" (and {missed} times since this was last said)" if missed else ""


@dataclass
class _Place:
    """Up to where a file was read."""

    inode: int
    at_byte: int

    @classmethod
    def at_the_end_of(cls, path: Path) -> Self:
        result = path.stat() if path.exists() else None
        return cls(result.st_ino, result.st_size) if result else cls(0, 0)

    def read(self, file: BinaryIO) -> Iterable[bytes]:
        """Yield the whole lines from here on."""
        file.seek(self.at_byte)
        while line := file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                return
            self.at_byte += len(line)
            yield line


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(str(line.get(name, "")) for name in ("event", "provider", "why", "status", "model", "names"))


def _shown(text: str) -> str:
    """Return a text as it may stand on a terminal: a provider's words may hold what moves its cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
