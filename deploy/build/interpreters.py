"""`make interpreters`: the tests with every supported Python that is here, each in an environment of its own.

The environments lie in build/interpreters, from the same locks as .venv: a package that has no build for a version is
told by the installer. A version is looked for on PATH and among pyenv's; VERSIONS may name a path instead. A version
that is not here is told in the table and fails nothing, unless VERSIONS asks for it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from deploy.local import interpreter, supported
from deploy.local.interpreter import Interpreter

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER: Final = REPOSITORY / "build" / "interpreters"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one version: its line of the table."""

    name: str
    program: str
    seconds: float
    outcome: str
    failed: bool


def found(name: str) -> Interpreter | None:
    """Return the first Python of a version such as 3.13, or the one at a path; None where there is none of ours."""
    if os.sep in name:
        given = interpreter.look_at(name)
        return given if given is not None and given.supported else None
    programs = chain(interpreter.on_path(name), interpreter.of_pyenv(name))
    return next(interpreter.of_version(name, programs), None)


def tried(python: Interpreter, pytest: Sequence[str]) -> Row:
    """Set an environment up for an interpreter and run the tests in it."""
    began = time.monotonic()
    folder = FOLDER / python.short_version
    program = str(python.program)
    print(f"Python {python.whole_version}: {program}", flush=True)

    def row(outcome: str, failed: bool) -> Row:
        seconds = time.monotonic() - began
        return Row(name=python.whole_version, program=program, seconds=seconds, outcome=outcome, failed=failed)

    # Set-up takes the one that is named, where it would choose one that was built with optimizations.
    environment = {**os.environ, "PYTHON": program, "PYTHONPATH": f"gen{os.pathsep}."}
    set_up = [program, "-m", "deploy.local.setup", str(folder)]
    if subprocess.run(set_up, cwd=REPOSITORY, env=environment, check=False).returncode:
        return row("not set up: see above", failed=True)
    line = [str(folder / "bin" / "python"), "-m", "pytest", *pytest]
    last = ""
    with subprocess.Popen(line, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for each in process.stdout:
            print(each, end="", flush=True)
            if re.match(r"=* ?\d+ (passed|failed|error|skipped|deselected)", each):
                last = each.strip("= \n")
    return row(last or f"pytest ended with {process.returncode}", failed=process.returncode != 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every version; return 1 where the tests fail on one, or one that was asked for is not here."""
    every = [f"{major}.{minor}" for major, minor in supported.versions()]
    parser = argparse.ArgumentParser(prog="make interpreters", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="VERSION", help="such as 3.13, or a path")
    parser.add_argument("pytest", nargs="*", help="for pytest, behind --")
    given = parser.parse_args(arguments)
    rows = []
    for name in given.only or every:
        here = found(name)
        if here is not None:
            rows.append(tried(here, given.pytest))
            continue
        why = f"not here, or none of ours: {supported.tested()}; VERSIONS may name a path"
        rows.append(Row(name=name, program="", seconds=0.0, outcome=why, failed=bool(given.only)))
    print()
    for row in rows:
        print(f"{row.name:<8} {row.seconds:6.0f} s  {'FAILED  ' if row.failed else ''}{row.outcome}  {row.program}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
