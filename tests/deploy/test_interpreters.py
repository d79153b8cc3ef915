"""`make interpreters` finds every supported Python, sets each up apart and runs the tests with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.build import interpreters
from deploy.local.interpreter import Interpreter
from tests.local.played_python import play_program, play_python


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only what is here is on PATH."""
    monkeypatch.setattr(interpreters, "FOLDER", tmp_path / "made")
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def test_where_they_are_found(folder: Path) -> None:
    """What PATH has goes before pyenv's, of which the newest is taken; a shim that is off is passed by."""
    play_program(folder / "one" / "python3.13", "#!/bin/sh\nexit 127\n")
    second = play_python(folder / "two" / "python3.13", "3.13.2")
    pyenv = folder / "pyenv" / "versions"
    play_python(pyenv / "3.13.9" / "bin" / "python3.13", "3.13.9")
    play_python(pyenv / "3.14.9" / "bin" / "python3.14", "3.14.9")
    newest = play_python(pyenv / "3.14.10" / "bin" / "python3.14", "3.14.10")
    other = play_python(folder / "mine", "3.12.4")
    refused = play_python(folder / "pypy", "3.12.4", implementation="pypy")
    assert place("3.13") == (second, "3.13.2")
    assert place("3.14") == (newest, "3.14.10")
    assert place(str(other)) == (other, "3.12.4")
    assert place("3.10") is None
    assert place(str(refused)) is None
    assert place(str(folder / "nobody")) is None


def place(name: str) -> tuple[Path, str] | None:
    found = interpreters.found(name)
    return (found.program, found.whole_version) if found else None


def test_each_is_tried(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each has an environment of its own and the given arguments; one that fails fails the run, the others go on."""
    failing = play_python(folder / "one" / "python3.12", "3.12.4", code=1, words="== 1 failed, 11 passed in 2s ==")
    play_python(folder / "one" / "python3.13", "3.13.2")
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
        play_python(folder / "one" / f"python{name}", f"{name}.1")
    arguments = ["--only", "3.14"] if asked else []
    # What this machine has of 3.14 on the system's own PATH is not looked at.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder / 'one'}:/nowhere")
        patch.setattr(interpreters, "tried", lambda python, _: row(python))
        assert interpreters.main(arguments) == int(asked)
    output = capfd.readouterr().out
    assert "3.14          0 s" in output
    assert "not here" in output


def row(python: Interpreter) -> interpreters.Row:
    return interpreters.Row(
        name=python.whole_version, program=str(python.program), seconds=1.0, outcome="12 passed", failed=False
    )
