"""`make interpreters` finds every supported Python, sets each up apart and runs the tests with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.build import interpreters

SCRIPT = """#!/bin/sh
case "$*" in
*supported.py) exit {refused} ;;
-c*) echo {version} ;;
*deploy.local.setup*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*pytest*) echo "$PYTHONPATH $*"; echo "{words}"; exit {code} ;;
*) exit 9 ;;
esac
"""
"""A Python that is asked for its version, set up, and run with tests."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only what is here is on PATH."""
    monkeypatch.setattr(interpreters, "FOLDER", tmp_path / "made")
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(path: Path, version: str, *, refused: int = 0, code: int = 0, words: str = "12 passed in 1s") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT.format(version=version, refused=refused, code=code, words=words))
    path.chmod(0o755)
    return path


def test_where_they_are_found(folder: Path) -> None:
    """What PATH has goes before pyenv's, of which the newest is taken; a shim that is off is passed by."""
    put(folder / "one" / "python3.13", "3.13.1", refused=127)
    second = put(folder / "two" / "python3.13", "3.13.2")
    put(folder / "pyenv" / "versions" / "3.13.9" / "bin" / "python3.13", "3.13.9")
    put(folder / "pyenv" / "versions" / "3.14.9" / "bin" / "python3.14", "3.14.9")
    newest = put(folder / "pyenv" / "versions" / "3.14.10" / "bin" / "python3.14", "3.14.10")
    other = put(folder / "mine", "3.12.4")
    assert interpreters.found("3.13") == (str(second), "3.13.2")
    assert interpreters.found("3.14") == (str(newest), "3.14.10")
    assert interpreters.found(str(other)) == (str(other), "3.12.4")
    assert interpreters.found("3.10") is None
    assert interpreters.found(str(folder / "nobody")) is None


def test_each_is_tried(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each has an environment of its own and the given arguments; one that fails fails the run, the others go on."""
    failing = put(folder / "one" / "python3.12", "3.12.4", code=1, words="== 1 failed, 11 passed in 2s ==")
    put(folder / "one" / "python3.13", "3.13.2")
    assert interpreters.main(["--only", "3.12", "--only", "3.13", "--", "-n", "0"]) == 1
    assert interpreters.main(["--only", "3.13", "--", "-n", "0"]) == 0
    output = capfd.readouterr().out
    assert "gen:. -m pytest -n 0\n" in output
    assert f"FAILED  1 failed, 11 passed in 2s  {failing}\n" in output
    assert {made.name for made in (folder / "made").iterdir()} == {"3.12", "3.13"}


@pytest.mark.parametrize("asked", [True, False])
def test_one_that_is_not_here(folder: Path, capfd: pytest.CaptureFixture[str], asked: bool) -> None:
    """It is told, and fails the run where it was asked for."""
    for name in ("3.11", "3.12", "3.13"):
        put(folder / "one" / f"python{name}", f"{name}.1")
    arguments = ["--only", "3.14"] if asked else []
    # What this machine has of 3.14 on the system's own PATH is not looked at.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder / 'one'}:/nowhere")
        patch.setattr(interpreters, "tried", lambda program, whole, _: row(program, whole))
        assert interpreters.main(arguments) == int(asked)
    output = capfd.readouterr().out
    assert "3.14          0 s" in output
    assert "not here" in output


def row(program: str, whole: str) -> interpreters.Row:
    return interpreters.Row(name=whole, program=program, seconds=1.0, outcome="12 passed", failed=False)
