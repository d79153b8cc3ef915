"""The Makefile as a stranger meets it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.stack import REPOSITORY

MAKE = shutil.which("make") or "make"


def test_help_lists_every_target() -> None:
    """Every target that can be asked for stands in `make help`, with a line."""
    targets = set(re.findall(r"^\.PHONY: (\S+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    shown = subprocess.run([MAKE, "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == targets
    assert all(len(line.split()) > 2 for line in shown.splitlines())


@pytest.mark.parametrize("old", [False, True])
def test_python_is_missing(tmp_path: Path, old: bool) -> None:
    """Without a Python that is new enough, set-up says so in one sentence."""
    for tool in ("sh", "find", "sed", "awk", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    if old:
        (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "python3").chmod(0o755)
    stamp = tmp_path / "ready"
    done = subprocess.run(
        [MAKE, "setup", f"READY={stamp}", "PYTHON="],
        cwd=REPOSITORY,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "make: Python >=3.11,<3.15 is needed and was not found" in done.stderr
    assert not stamp.exists()


@pytest.mark.parametrize(("version", "fails"), [("3.99", True), ("", False)])
def test_the_named_python_is_not_that_of_the_environment(tmp_path: Path, version: str, fails: bool) -> None:
    """`make … PYTHON=` of another version than .venv has is refused, not left aside in silence; the same goes on."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    environment = tmp_path / "bin" / "python"
    environment.parent.mkdir()
    environment.write_text(f"#!/bin/sh\necho {version or own}\n")
    environment.chmod(0o755)
    line = [MAKE, ".the-named", f"PYTHON={sys.executable}", f"VENV={environment.parent}"]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails
    assert (f"{tmp_path} is of Python {version}; delete it to change that" in done.stderr) == fails
