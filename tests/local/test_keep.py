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


def test_given_secrets_are_kept_at_first(tmp_path: Path) -> None:
    """A second host may be given the first one's; an installation that has its own keeps them."""
    path, given = tmp_path / "secrets.env", {"MOA_KEY_PEPPER": "p" * 32, "MOA_SERVICE_TOKEN": ""}
    first = keep.internal_secrets(path, given)
    assert first["MOA_KEY_PEPPER"] == "p" * 32
    assert len(first["MOA_SERVICE_TOKEN"]) >= 32
    assert keep.internal_secrets(path, {"MOA_KEY_PEPPER": "q" * 32}) == first


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


def test_an_open_installation_is_closed(tmp_path: Path) -> None:
    """What an earlier start left open to read is its owner's alone; the database's folder and links are left alone."""
    root = tmp_path / "home"
    (root / "state" / "router").mkdir(parents=True)
    (root / "postgres").mkdir()
    for folder in (root, root / "state", root / "state" / "router", root / "postgres"):
        folder.chmod(0o755)
    outside = tmp_path / "outside"
    outside.write_text("x")
    (root / "link").symlink_to(outside)
    files = [root / "secrets.env", root / "state" / "router" / "journal", root / "postgres" / "PG_VERSION", outside]
    for file in files:
        file.write_text("x")
        file.chmod(0o644)
    keep.close_to_others(root, but=root / "postgres")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (root, root / "state" / "router", *files)}
    assert list(modes.values()) == [0o700, 0o700, 0o600, 0o600, 0o644, 0o644]


def test_folders_and_logs_are_made_private(tmp_path: Path) -> None:
    """A folder that is made, with those above it, and a log are the owner's alone; those that were there stay."""
    tmp_path.chmod(0o755)
    made = keep.private_folder(tmp_path / "logs" / "old")
    with keep.appending(made / "router.log") as log:
        log.write(b"line")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, made.parent, made, made / "router.log")]
    assert modes == [0o755, 0o700, 0o700, 0o600]
