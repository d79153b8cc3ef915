"""The catalogue's file, where whoever operates the gateway may change it from the console."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from services.common.errors import Conflict, StorageFailed


class Text(NamedTuple):
    """What the file says now."""

    text: str
    etag: str


class CatalogueFile:
    """Reads the file, and replaces it whole. Several processes may.

    Args:
        path: The file.
        editable: Whether the operator lets it be changed here.
    """

    def __init__(self, path: Path, *, editable: bool) -> None:
        self.path = path
        self._editable = editable

    @property
    def why_not(self) -> str:
        """Why the file cannot be changed here, and what to do; empty where it can."""
        try:
            self.check_editable()
        except Conflict as error:
            return error.message
        return ""

    def check_editable(self) -> None:
        """Raise Conflict, with what to do instead, where the file cannot be changed here."""
        if not self._editable:
            raise Conflict(
                "the catalogue is deployed with this gateway: change it where it is deployed from (`catalogue` in the"
                " chart's values, or the file beside docker-compose.yml), and roll it out"
            )
        if not os.access(self.path.parent, os.W_OK) or not os.access(self.path, os.W_OK):
            raise Conflict(f"{self.path} cannot be written by the gateway: change it there, or give it the right to")

    def read(self) -> Text:
        """Return what the file says. Raises StorageFailed."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"the catalogue cannot be read: {error.strerror}") from None
        return Text(data.decode("utf-8", "replace"), etag_of(data))

    def check_current(self, etag: str) -> None:
        """Raise Conflict where the file is not what `etag` stands for any more."""
        _check_same(self.read().etag, etag)

    def replace(self, text: str, etag: str) -> str:
        """Put a text in the file's place, whole or not at all; return what stands for it.

        Raises Conflict where the file is not `etag` any more or is not to be changed, and StorageFailed.
        """
        self.check_editable()
        data = text.encode()
        try:
            # A link to the file, as to a place that is shared, stays one.
            place = self.path.resolve(strict=True)
            with _alone(place.parent):
                _check_same(etag_of(place.read_bytes()), etag)
                _put(place, data)
        except OSError as error:
            raise StorageFailed(f"the catalogue cannot be written: {error.strerror}") from None
        return etag_of(data)


def etag_of(data: bytes) -> str:
    """Return what stands for a text."""
    return hashlib.sha256(data).hexdigest()[:32]


def _check_same(now: str, etag: str) -> None:
    if now != etag:
        raise Conflict("the catalogue was changed since it was read: read it again, and repeat the change")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have no other process replace a file of a folder meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _put(place: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), place.stat().st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
