"""The files of tests are imported once, where a process can be forked afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from deploy.local.stack import REPOSITORY
from tests.suite import imports

PROGRAM = """
import anyio, sys
from tests.suite import imports
imports.take()
print(type(sys.modules["test_one"].__loader__).__name__)
"""


def taken(folder: Path, file: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_one.py").write_text(file)
    (folder / "pytest.ini").write_text("[pytest]\n")
    told = {imports.ARGUMENTS: json.dumps(["-p", "xdist.plugin"]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, **told, "PYTHONPATH": f"{REPOSITORY / 'gen'}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_imported_explains_its_asserts(tmp_path: Path) -> None:
    """And nothing is printed of a collection that finds nothing."""
    done = taken(tmp_path, "def test_it():\n    assert 1 == 2\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "AssertionRewritingHook\n", "")


def test_an_import_that_starts_a_thread_is_named(tmp_path: Path) -> None:
    """It would leave the tests without workers."""
    done = taken(tmp_path, "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    assert done.returncode == 1
    assert done.stderr.startswith("test_one.py imports what starts threads")
