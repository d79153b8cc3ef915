"""A journal of reservations that outlives a killed process, so that nothing consumed goes unbooked.

One file a process, appended with one `write` a record: what was written is the kernel's, and survives kill -9. (A
power failure may take the last moments; auth's own commit follows within a second.) A file is locked by
its owner while it lives; the next process in the same folder reads the unlocked ones and deletes them once booked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<cII")
_OPENED, _SETTLED, _RELEASED = b"O", b"S", b"R"
_SUFFIX = ".journal"
_ROTATE_BYTES = 8 * 1024 * 1024
_ROOM_BYTES = 64 * 1024
"""What a disk that was full must take before it counts as one that is not."""


class Left(NamedTuple):
    """What a process that is gone left in its journal."""

    path: Path
    lock: int
    settlements: list[bytes]
    """Settlements, serialized, that may not be booked."""
    opened: list[str]
    """Reservations that were neither settled nor released."""


class Journal:
    """The journal of this process.

    Args:
        folder: Where; made when missing.
        name: Unique to this process.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"{name}{_SUFFIX}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.size = 0
        """The file's length in bytes."""
        self.fault = ""
        """Why something could not be written (a full disk) since it was last compact; empty: all of it was."""

    def opened(self, reservation_id: str) -> None:
        """Note that a reservation was made."""
        self._append(_OPENED, reservation_id.encode())

    def settled(self, settlement: bytes) -> None:
        """Note what a reservation came to, as a serialized Settlement."""
        self._append(_SETTLED, settlement)

    def released(self, reservation_id: str) -> None:
        """Note that nothing was consumed."""
        self._append(_RELEASED, reservation_id.encode())

    @property
    def full(self) -> bool:
        """Whether it is worth starting anew (`compact`)."""
        return self.size > _ROTATE_BYTES

    @property
    def behind(self) -> bool:
        """Whether something that matters is not in it."""
        return bool(self.fault)

    def compact(self, settlements: list[bytes], opened: list[str]) -> None:
        """Start anew with what still matters. The old content is replaced at once, or not at all: then OSError.

        A disk that was full must have some room for what follows, too.
        """
        records = [_record(_OPENED, reservation_id.encode()) for reservation_id in opened]
        content = b"".join([*records, *(_record(_SETTLED, settlement) for settlement in settlements)])
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if self.behind:
                _write(file, bytes(_ROOM_BYTES), at=0)
                os.ftruncate(file, 0)
            _write(file, content, at=0)
            fresh.replace(self._path)
        except OSError:
            os.close(file)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self.size, self.fault = file, len(content), ""

    def close(self, *, keep: bool) -> None:
        """Close; the file is deleted unless something in it still matters."""
        if not keep:
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def left(self) -> Iterator[Left]:
        """Return what processes that are gone left in the folder. Call `forget` on each once it is booked."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path == self._path:
                continue
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            yield _read(path, file)

    @staticmethod
    def forget(left: Left) -> None:
        """Delete a journal whose content is booked."""
        left.path.unlink(missing_ok=True)
        os.close(left.lock)

    @staticmethod
    def postpone(left: Left) -> None:
        """Leave a journal for another process."""
        os.close(left.lock)

    def _append(self, kind: bytes, body: bytes) -> None:
        record = _record(kind, body)
        try:
            _write(self._file, record, at=self.size)
        except OSError as error:
            self.fault = error.strerror or str(error)
            raise
        self.size += len(record)


def _record(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(kind, len(body), zlib.crc32(body)) + body


def _write(file: int, data: bytes, *, at: int) -> None:
    """Append all of it or, on a full disk, nothing: what follows a torn record could not be read. Raises OSError."""
    if os.write(file, data) < len(data):
        os.ftruncate(file, at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read(path: Path, file: int) -> Left:
    with os.fdopen(os.dup(file), "rb") as reader:
        content = reader.read()
    settlements: list[bytes] = []
    opened: dict[str, None] = {}
    at = 0
    while at + _HEAD.size <= len(content):
        kind, length, check = _HEAD.unpack_from(content, at)
        body = content[at + _HEAD.size : at + _HEAD.size + length]
        if len(body) < length or zlib.crc32(body) != check:
            break  # torn: the process was killed while it wrote
        at += _HEAD.size + length
        if kind == _OPENED:
            opened[body.decode()] = None
        elif kind == _SETTLED:
            settlements.append(body)
        else:
            opened.pop(body.decode(), None)
    return Left(path, file, settlements, list(opened))
