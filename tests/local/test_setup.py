"""Set-up says in a sentence what is in the way."""

from __future__ import annotations

import importlib.util
import shutil
from collections import namedtuple

import pytest

from deploy.local import setup


def test_no_venv_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without venv (Debian's bare one) is told with the package that has it."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name))
    with pytest.raises(SystemExit, match=r"has no venv module; install it .*apt install python3\.\d+-venv"):
        setup.check_machine()


def test_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A first set-up on a small disk is refused before anything is downloaded."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2**30))
    monkeypatch.setattr(setup, "PYTHON", tmp_path_factory.mktemp("empty") / "python")
    with pytest.raises(SystemExit, match=r"3 GB of disk are needed in .*, and 1\.0 GB are free"):
        setup.check_machine()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "is full"),
        ("ERROR: No matching distribution found for uvloop==0.23.0", "no ready-made build for Python 3"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "not the one that was pinned"),
        ("something else", "pip could not install"),
    ],
)
def test_what_pip_says(said: str, sentence: str) -> None:
    """pip's commonest endings are told in words."""
    assert sentence in setup.meaning(said)
