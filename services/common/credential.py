"""The credential by which Moa's processes know each other, which may change while they run."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.common import logs, scrub
from services.common.settings import LEAST_SECRET_CHARS, ServiceSettings

LOOK_S: Final = 1.0
"""How often the file is looked at, at most; nobody looks while nobody calls."""

_log = logs.get("credential")


class BadCredential(Exception):
    """The file has no credential. The message says why, and none of its text."""


class RotatedCredential:
    """What a file says: the credential in its first line is sent, each of its lines is accepted.

    Args:
        path: The file.
        clock: Monotonic seconds.

    Raises BadCredential.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._looked_at = clock()
        self._held = _read(path)

    @property
    def sent(self) -> str:
        """Return what this process shows others."""
        return self._now()[0]

    @property
    def accepted(self) -> tuple[str, ...]:
        """Return what others may show it."""
        return self._now()

    def accepts(self, given: str) -> bool:
        """Return whether it is what others may show, by the file as it is now where it was not before."""
        if _is_among(given, self._now()):
            return True
        return _is_among(given, self._now(at_once=True))

    def _now(self, *, at_once: bool = False) -> tuple[str, ...]:
        with self._lock:
            at = self._clock()
            if at_once or at - self._looked_at >= LOOK_S:
                self._looked_at = at
                self._look()
            return self._held

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            self._held = _read(self._path)
        except BadCredential as error:
            _log.error("credential.refused", why=str(error))
        else:
            _log.info("credential.read", accepted=len(self._held))
        self._stamp = stamp


Credential = str | RotatedCredential
"""One for as long as the process runs, or one that may change."""


def credential_of(config: ServiceSettings) -> Credential:
    """Return the credential that the settings name. A bad file ends the process with the variable's name."""
    if config.service_token_file is None:
        return config.service_token.get_secret_value()
    try:
        return RotatedCredential(config.service_token_file)
    except BadCredential as error:
        raise SystemExit(f"bad setting MOA_SERVICE_TOKEN_FILE: {error}") from None


def accepted(credential: Credential) -> tuple[str, ...]:
    """Return what others may show, or have signed with."""
    return (credential,) if isinstance(credential, str) else credential.accepted


def sent(credential: Credential) -> str:
    """Return what this process shows others, and signs with."""
    return credential if isinstance(credential, str) else credential.sent


def _is_among(given: str, known: tuple[str, ...]) -> bool:
    # Each is compared, however early one fits.
    fits = [hmac.compare_digest(given.encode(), each.encode()) for each in known]
    return any(fits)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _read(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadCredential(f"{path}: {why}") from None
    found = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not found:
        raise BadCredential(f"{path} is empty")
    if any(len(each) < LEAST_SECRET_CHARS for each in found):
        raise BadCredential(f"{path} has a line with less than {LEAST_SECRET_CHARS} characters")
    scrub.know(*found)
    return found
