"""The journal of reservations on a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from services.quota_client._journal import Journal, Left


class Disk:
    """Takes so many more bytes, as a disk does that fills up: a write that does not fit is cut short, then refused."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(file, data[: self.room])
        self.room -= written
        return written


def left_by(folder: Path) -> Left:
    """Return what a successor finds."""
    (left,) = Journal(folder, "successor").left()
    return left


def test_a_torn_record_hides_nothing_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that does not fit leaves no half of itself: what is written once there is room again is found."""
    journal = Journal(tmp_path, "one")
    journal.settled(b"first")
    disk = Disk(room=5)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", disk.write)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                journal.settled(b"does not fit")
            disk.room = 3
    assert journal.behind
    journal.settled(b"second")
    journal.opened("open")
    journal.close(keep=True)
    left = left_by(tmp_path)
    assert left.settlements == [b"first", b"second"]
    assert left.opened == ["open"]


def test_a_failed_compaction_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the new file: the old one stands, and is written on; later the new one takes its place."""
    journal = Journal(tmp_path, "one")
    journal.settled(b"first")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", Disk(room=4).write)
        with pytest.raises(OSError, match="No space left"):
            journal.compact([b"first"], ["open"])
    assert [path.name for path in tmp_path.iterdir()] == ["one.journal"]
    journal.settled(b"second")
    journal.compact([b"second"], ["open"])
    assert not journal.behind
    journal.settled(b"third")
    journal.close(keep=True)
    left = left_by(tmp_path)
    assert left.settlements == [b"second", b"third"]
    assert left.opened == ["open"]
