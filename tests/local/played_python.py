"""Programs that answer what a Python is asked by those who look for one, set it up and run tests with it."""

from __future__ import annotations

import json
from pathlib import Path

_SCRIPT = """#!/bin/sh
case "$*" in
-c*) echo '{answer}' ;;
*deploy.local.setup*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*pytest*) echo "$PYTHONPATH $*"; echo "{words}"; exit {code} ;;
*) exit 9 ;;
esac
"""


def play_python(
    program: Path,
    version: str,
    *,
    optimized: bool = True,
    complete: bool = True,
    implementation: str = "cpython",
    words: str = "12 passed in 1s",
    code: int = 0,
) -> Path:
    """Make one, whose pytest ends with these words and this code; return its path."""
    answer = {
        "program": str(program),
        "version": [int(part) for part in version.split(".")],
        "implementation": implementation,
        "free_threaded": False,
        "optimized": optimized,
        "complete": complete,
    }
    return play_program(program, _SCRIPT.format(answer=json.dumps(answer), words=words, code=code))


def play_program(program: Path, script: str) -> Path:
    """Make a program of a script; return its path."""
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(script)
    program.chmod(0o755)
    return program
