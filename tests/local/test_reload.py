"""What a reload leaves as it was."""

from __future__ import annotations

from pathlib import Path

from deploy.local.reload import launcher_code


def test_the_launchers_code_is_known_again(tmp_path: Path) -> None:
    """The launcher is told from one of another release by what its files are called and hold."""
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "note.txt").write_text("of no matter")
    before = launcher_code(tmp_path)
    (tmp_path / "note.txt").write_text("changed")
    assert launcher_code(tmp_path) == before
    (tmp_path / "two.py").write_text("2")
    with_two = launcher_code(tmp_path)
    (tmp_path / "two.py").rename(tmp_path / "three.py")
    assert len({before, with_two, launcher_code(tmp_path)}) == 3
