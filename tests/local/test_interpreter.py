"""Which Pythons are found, and which of them the virtual environment is made of."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deploy.local import interpreter
from deploy.local.interpreter import Interpreter
from tests.local.played_python import play_program, play_python


def _interpreter(program: Path, version: tuple[int, ...], *, optimized: bool) -> Interpreter:
    return Interpreter(program, version, supported=True, optimized=optimized, complete=True)


def test_of_itself() -> None:
    """A real Python tells its version and program, that Moa runs on it, and that it can make an environment."""
    found = interpreter.look_at(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:3]
    assert found.program == Path(sys.executable)
    assert found.supported
    assert found.complete


def test_an_optimized_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of one without optimizations comes the first in PATH that has them and can make an environment."""
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    play_python(slow / "python3.11", "3.11.7", optimized=False)
    play_python(slow / "python3.12", "3.12.1", complete=False)
    wanted = play_python(quick / "python3.12", "3.12.4")
    play_python(quick / "python3.13", "3.13.0")
    monkeypatch.setenv("PATH", os.pathsep.join(("", str(slow), str(quick), str(tmp_path / "none"))))
    others = list(interpreter.installed())
    assert [each.version for each in others] == [(3, 11, 7), (3, 12, 1), (3, 12, 4), (3, 13, 0)]
    found = interpreter.better(others[0], others)
    assert found is not None
    assert found.program == wanted


def test_what_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that Moa does not run on, one of another version than its name says, and one that is there twice are left."""
    play_python(tmp_path / "a" / "python3.12", "3.12.1", implementation="pypy")
    play_python(tmp_path / "b" / "python3.12", "3.11.9")
    wanted = play_python(tmp_path / "c" / "python3.12", "3.12.4")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "python3.12").symlink_to(wanted)
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in "abcd"))
    assert [each.program for each in interpreter.installed()] == [wanted]


def test_an_optimized_one_stays(tmp_path: Path) -> None:
    """Who runs one with optimizations keeps it; so does who has no other."""
    own = _interpreter(tmp_path / "own", (3, 12, 4), optimized=True)
    other = _interpreter(tmp_path / "other", (3, 11, 2), optimized=True)
    slow = _interpreter(tmp_path / "slow", (3, 11, 7), optimized=False)
    assert interpreter.better(own, [other]) is None
    assert interpreter.better(slow, [slow]) is None


def test_the_named_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHON=…` is the Python that is taken, whatever else is there."""
    play_python(tmp_path / "python3.11", "3.11.2")
    slow = _interpreter(tmp_path / "slow", (3, 11, 7), optimized=False)
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
    program = play_program(tmp_path / "python3.11", f"#!/bin/sh\n{says}\n")
    assert interpreter.look_at(program) is None
    assert interpreter.look_at(tmp_path / "absent") is None
