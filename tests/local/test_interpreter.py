"""Which Python the virtual environment is made of."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from deploy.local import interpreter
from deploy.local.interpreter import Interpreter


def _python(folder: Path, name: str, *, optimized: bool, complete: bool = True, version: tuple[int, ...]) -> Path:
    """Make a program that says of itself what a Python is asked for."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    answer = {"program": str(program), "version": version, "optimized": optimized, "complete": complete}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    return program


def test_of_itself() -> None:
    """A real Python tells its version and program, and that it can make a virtual environment."""
    found = interpreter.look_at(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:3]
    assert found.program == Path(sys.executable)
    assert found.complete


def test_an_optimized_one_is_taken(tmp_path: Path) -> None:
    """In place of one without optimizations comes the first in PATH that has them and can make an environment."""
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    _python(slow, "python3.11", optimized=False, version=(3, 11, 7))
    _python(slow, "python3.12", optimized=True, complete=False, version=(3, 12, 1))
    wanted = _python(quick, "python3.12", optimized=True, version=(3, 12, 4))
    _python(quick, "python3.13", optimized=True, version=(3, 13, 0))
    others = list(interpreter.installed(os.pathsep.join(("", str(slow), str(quick), str(tmp_path / "none")))))
    assert [each.version for each in others] == [(3, 11, 7), (3, 12, 1), (3, 12, 4), (3, 13, 0)]
    found = interpreter.better(others[0], others)
    assert found is not None
    assert found.program == wanted


def test_an_optimized_one_stays(tmp_path: Path) -> None:
    """Who runs one with optimizations keeps it; so does who has no other."""
    own = Interpreter(tmp_path / "own", (3, 12, 4), optimized=True, complete=True)
    other = Interpreter(tmp_path / "other", (3, 11, 2), optimized=True, complete=True)
    slow = Interpreter(tmp_path / "slow", (3, 11, 7), optimized=False, complete=True)
    assert interpreter.better(own, [other]) is None
    assert interpreter.better(slow, [slow]) is None


def test_the_named_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHON=…` is the Python that is taken, whatever else is there."""
    _python(tmp_path, "python3.11", optimized=True, version=(3, 11, 2))
    slow = Interpreter(tmp_path / "slow", (3, 11, 7), optimized=False, complete=True)
    real = interpreter.look_at
    monkeypatch.setattr(interpreter, "look_at", lambda one: slow if one == sys.executable else real(one))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHON", "")
    assert interpreter.found_better() is not None
    monkeypatch.setenv("PYTHON", sys.executable)
    assert interpreter.found_better() is None


@pytest.mark.parametrize("says", ["echo no", "exit 1", "echo '{\"version\": 3}'", "echo '[]'"])
def test_what_is_no_python(tmp_path: Path, says: str) -> None:
    """What does not say what a Python says is none."""
    program = tmp_path / "python3.11"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    assert interpreter.look_at(program) is None
    assert interpreter.look_at(tmp_path / "absent") is None
