"""Set-up says in a sentence what is in the way."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from deploy.local import setup, supported
from deploy.local.alone import alone


def test_no_venv_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without venv (Debian's bare one) is told with the package that has it."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name))
    with pytest.raises(SystemExit, match=r"has no venv module; install it .*apt install python3\.\d+-venv"):
        setup.check_machine(setup.VENV)


@pytest.mark.parametrize(
    ("version", "implementation", "free_threaded", "sentence"),
    [
        ((3, 10), "cpython", False, "it is Python 3.10; CPython 3.11 to 3.14 are supported and tested"),
        ((3, 15), "cpython", False, "it is Python 3.15; CPython 3.11 to 3.14 are supported and tested"),
        ((3, 11), "pypy", False, "it is pypy; CPython 3.11 to 3.14 are supported and tested"),
        ((3, 14), "cpython", True, "it is a free-threaded build, for which packages are missing; "),
        *(((3, minor), "cpython", False, "") for minor in (11, 12, 13, 14)),
    ],
)
def test_which_pythons(version: tuple[int, int], implementation: str, free_threaded: bool, sentence: str) -> None:
    """A Python on which Moa is not tested is refused, with what is."""
    told = supported.refusal(version, implementation, free_threaded)
    assert told.startswith(sentence)
    assert bool(told) == bool(sentence)


def test_set_up_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set-up says so before anything is made."""
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    with pytest.raises(SystemExit, match=r"^make setup: .* cannot be used: it is pypy; CPython 3\.11 to 3\.14 are"):
        setup.check_machine(setup.VENV)


def test_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A first set-up on a small disk is refused before anything is downloaded."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2**30))
    with pytest.raises(SystemExit, match=r"3 GB of disk are needed in .*, and 1\.0 GB are free"):
        setup.check_machine(tmp_path)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "is full"),
        ("ERROR: No matching distribution found for uvloop==0.23.0", "no ready-made build for Python 3"),
        ("× No solution found when resolving dependencies:", "no ready-made build for Python 3"),
        ("error: Hash mismatch for `uvloop==0.23.0`", "not the one that was pinned"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "not the one that was pinned"),
        ("something else", "could not be installed"),
    ],
)
def test_what_pip_says(monkeypatch: pytest.MonkeyPatch, said: str, sentence: str) -> None:
    """pip's and uv's commonest endings are told in words."""
    for name in ("https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert sentence in setup.meaning(said)


@pytest.mark.parametrize(
    "said",
    [
        "cause: error sending request for url (https://packages.example/six)\ncause: tunnel error: failed to connect",
        "ProxyError('Cannot connect to proxy.', ConnectionRefusedError(111))",
        "ERROR: No matching distribution found for uvloop==0.23.0",
    ],
)
def test_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Where packages are asked for through one, and without its password."""
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:secret@proxy.example:3128")
    assert "HTTPS_PROXY=http://proxy.example:3128;" in setup.meaning(said)
    assert "through" not in setup.meaning("error: Hash mismatch for `uvloop==0.23.0`")


def test_one_at_a_time(tmp_path: Path) -> None:
    """Who comes second is told so, waits, and learns that the first one has been there."""
    lock, told, entered = tmp_path / "lock", threading.Event(), threading.Event()
    found: list[bool] = []

    def second() -> None:
        with alone(lock, waiting=told.set) as waited:
            found.append(waited)
            entered.set()

    thread = threading.Thread(target=second)
    with alone(lock, waiting=told.set) as waited:
        assert not waited
        thread.start()
        assert told.wait(20)
        assert not entered.is_set()
    thread.join(20)
    assert found == [True]


@pytest.mark.parametrize("finished", [True, False])
def test_a_second_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: bool
) -> None:
    """`make run` twice at once: the second waits, and does only what the first has left undone."""
    done: list[str] = []
    venv = tmp_path / ".venv"
    venv.mkdir()
    for name in ("make_environment", "install", "install_torch"):
        monkeypatch.setattr(setup, name, lambda _, name=name: done.append(name))
    entered = threading.Event()
    real = setup.tell

    def tell(what: str) -> None:
        real(what)
        if "waiting" in what:
            entered.set()

    monkeypatch.setattr(setup, "tell", tell)
    thread = threading.Thread(target=setup.main, args=(venv,))
    with alone(tmp_path / ".venv.lock", waiting=lambda: None):
        thread.start()
        assert entered.wait(20)
        if finished:
            stamp = setup.stamp_of(venv)
            stamp.touch()
            # File systems keep coarser times than the clock gives.
            after = stamp.stat().st_mtime + 10
            os.utime(stamp, (after, after))
    thread.join(20)
    assert done == ([] if finished else ["make_environment", "install", "install_torch"])
    assert "another set-up is at work here" in capsys.readouterr().out
