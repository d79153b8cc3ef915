"""Skips in continuous integration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.stack import REPOSITORY
from tests import skips

SUITE = """
import pytest

@pytest.mark.skipif(True, reason={reason!r})
def test_skipped() -> None: ...

def test_passed() -> None: ...
"""


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("no Chromium on this machine", "true", 1),
        ("no Chromium on this machine", "", 0),
        ("the protocol has no word for it, or so", "true", 1),
        ("the protocol has no word for it", "true", 0),
        ("needs an accelerator: none is here", "true", 0),
    ],
)
def test_a_skip_must_have_a_permitted_reason(tmp_path: Path, reason: str, ci: str, code: int) -> None:
    """In continuous integration a skip for any other reason fails the run and is named; elsewhere it does not."""
    (tmp_path / "conftest.py").write_text("from tests.skips import pytest_configure\n")
    (tmp_path / "test_it.py").write_text(SUITE.format(reason=reason))
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    # Without the plug-ins that are installed: they take seconds to load.
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert (f"NOT PERMITTED in continuous integration: {reason}" in done.stdout) == bool(code)


def test_what_only_linux_can_do_may_skip_elsewhere_alone() -> None:
    """Each reason of a test that looks at the system is permitted on others, and none of them on Linux."""
    skip = re.compile(r"skipif\((?:sys\.platform != |not Path\(\"/dev/).*reason=\"([^\"]+)\"\)")
    reasons = {reason for file in (REPOSITORY / "tests").rglob("*.py") for reason in skip.findall(file.read_text())}
    assert reasons >= {"needs /dev/full", "forks with pidfds, which Linux has"}
    assert {reason for reason in reasons if not skips.permitted(reason, "darwin")} == set()
    assert {reason for reason in reasons if skips.permitted(reason, "linux")} == set()
