"""The catalogue's file as a process read it last without a fault: what it starts from when the file has one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from services.common import logs
from services.common.settings import CatalogueSettings

_MOST_HEAD_BYTES: Final = 8192
_log = logs.get("catalogue")


class _Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: str
    """Which file it is a copy of."""
    sha256: str
    """Of the copy, in hexadecimal."""
    kept: str
    """When it was found right."""


_HEAD: Final = msgspec.json.Decoder(_Head)


@dataclass(frozen=True)
class Copy:
    """A file that was kept."""

    text: bytes
    kept: str
    """When it was found right, as ISO 8601."""


class LastGood:
    """Keeps copies of a catalogue's file.

    Args:
        folder: Where; None: nowhere.
        process: Whose it is: what one process takes another may refuse, for options that only its adapters know.
        source: The catalogue's file. A copy of another file is none of this one.
    """

    def __init__(self, folder: Path | None, process: str, source: Path) -> None:
        self._file = folder / f"{process}.catalogue" if folder is not None else None
        self._source = str(source.absolute())

    def copy(self) -> Copy | None:
        """Return what is kept; None where nothing is, or it is not as it was written."""
        if self._file is None:
            return None
        try:
            with self._file.open("rb") as opened:
                head, text = _HEAD.decode(opened.readline(_MOST_HEAD_BYTES)), opened.read()
        except (OSError, msgspec.DecodeError):
            return None
        if head.source != self._source or head.sha256 != hashlib.sha256(text).hexdigest():
            return None
        return Copy(text, head.kept)

    def keep(self, text: bytes) -> None:
        """Put the file's bytes, which were found right, in the place of the copy, whole or not at all.

        Where that cannot be done it is logged, and nothing else happens.
        """
        if self._file is None:
            return
        before = self.copy()
        if before is not None and before.text == text:
            return
        head = _Head(
            source=self._source,
            sha256=hashlib.sha256(text).hexdigest(),
            kept=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self._file, msgspec.json.encode(head) + b"\n" + text)
        except OSError as error:
            _log.warning("catalogue.not_kept", folder=str(self._file.parent), why=error.strerror or str(error))


def _replace(file: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())  # a name of a file that is empty after a power cut would be no copy
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def last_good_of(config: CatalogueSettings, process: str, folder: Path | None = None) -> LastGood:
    """Return what keeps copies for a process; in `folder` where the settings name none."""
    return LastGood(config.catalogue_kept or folder, process, config.catalogue)
