"""Secrets of a local installation: made once, readable by the owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

from deploy.local import keep


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """The second reading gives the same secrets: another pepper would end every key."""
    path = tmp_path / "deep" / "secrets.env"
    first = keep.internal_secrets(path)
    assert keep.internal_secrets(path) == first
    assert all(len(value) >= 32 for value in first.values())
    assert len(set(first.values())) == len(first)


def test_only_the_owner_reads(tmp_path: Path) -> None:
    """The file is private, also when one with wider rights lay there before."""
    path = tmp_path / "dev.env"
    path.write_text("old")
    path.chmod(0o644)
    keep.write_private(path, {"MOA_API_KEY": "moa-a=b"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keep.read(path) == {"MOA_API_KEY": "moa-a=b"}


def test_missing_file_is_empty(tmp_path: Path) -> None:
    """Nothing was kept yet: nothing is read."""
    assert keep.read(tmp_path / "none") == {}
