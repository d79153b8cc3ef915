"""`make check`: every gate in turn, then one table of them: gate, seconds, result.

A gate that fails does not stop the others. Each is a program with a time limit; the tests come last. A program that
ends with 77 was not run, and its last line says why.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from deploy.build import inputs
from deploy.build.breaking import NOT_RUN

REPOSITORY = Path(__file__).resolve().parents[2]
CODE: Final = ("services", "inference", "gateway", "deploy", "tests", "bench", "examples")

_GRACE_S: Final = 60.0
"""How long a gate that was interrupted may take to say its last words."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One check: its name in the table, its program, and how long that may take.

    `unless` names a target of `deploy.build.inputs`: the gate is not run while its inputs are those of the last pass.
    """

    name: str
    line: tuple[str, ...]
    limit_s: float = 600.0
    unless: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a gate ended: its line of the table, and whether the whole check fails by it."""

    name: str
    seconds: float
    word: str
    outcome: str
    """The last line that it printed."""
    failed: bool


def _tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name(name)), *arguments)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


def gates(pytest: Sequence[str] = (), workers: Sequence[str] = ()) -> tuple[Gate, ...]:
    """Return every gate, in the order of running; `pytest` are for the tests, `workers` for pytest always."""
    code = [name for name in CODE if (REPOSITORY / name).is_dir()]
    return (
        Gate(name="tools", line=_module("deploy.build.tools")),
        Gate(name="contracts", line=_module("deploy.build.protos")),
        Gate(name="ruff-check", line=_module("ruff", "check", *code)),
        Gate(name="ruff-format", line=_module("ruff", "format", "--check", *code)),
        Gate(name="mypy", line=_module("mypy", *code), limit_s=1200.0),
        Gate(name="buf-lint", line=_module("deploy.build.naming")),
        Gate(name="buf-breaking", line=_module("deploy.build.breaking")),
        Gate(name="import-linter", line=_tool("lint-imports", "--no-logo")),
        Gate(name="console", line=_module("deploy.build.console")),
        Gate(name="licences", line=_module("deploy.build.licences")),
        Gate(name="advisories", line=_module("deploy.build.advisories")),
        Gate(name="openapi", line=_module("deploy.build.openapi_lint")),
        Gate(name="stubs", line=_module("deploy.build.stubs")),
        Gate(name="cost", line=_module("bench.hot_path")),
        Gate(
            name="training",
            line=_module("pytest", *workers, "--group", "training", "tests", "inference/training/tests"),
            limit_s=1200.0,
            unless="test-training",
        ),
        Gate(name="containers", line=_module("deploy.container.trial"), limit_s=2700.0, unless="containers"),
        Gate(name="tests", line=_module("pytest", *workers, *pytest), limit_s=3600.0),
    )


def run(gate: Gate) -> Result:
    """Run a gate, showing what it prints; at its limit end it, and what it started in its session."""
    print(f"\n== {gate.name}", flush=True)
    if gate.unless and inputs.passed(gate.unless, REPOSITORY):
        outcome = "unchanged since it last passed"
        return Result(name=gate.name, seconds=0.0, word="not run", outcome=outcome, failed=False)
    began = time.monotonic()
    last: deque[str] = deque(maxlen=1)
    try:
        process = subprocess.Popen(
            gate.line,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return Result(name=gate.name, seconds=0.0, word="FAILED", outcome=str(error), failed=True)
    assert process.stdout is not None
    # A thread, because a process that outlives the gate may keep the pipe open for ever.
    reader = threading.Thread(target=_show, args=(process.stdout, last), daemon=True)
    reader.start()
    try:
        code = process.wait(gate.limit_s)
        outcome = ""
    except subprocess.TimeoutExpired:
        code, outcome = 1, f"not done after {gate.limit_s:.0f} s"
        _signal(process, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()
    reader.join(_GRACE_S / 10)
    if not reader.is_alive():
        process.stdout.close()
    word = {0: "passed", NOT_RUN: "not run"}.get(code, "FAILED")
    outcome = outcome or (last[0] if last else "" if code == 0 else f"exit code {code}")
    seconds = time.monotonic() - began
    return Result(name=gate.name, seconds=seconds, word=word, outcome=outcome, failed=word == "FAILED")


def _show(stream: IO[str], last: deque[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        if line.strip():
            last.append(line.strip())


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def table(results: Iterable[Result]) -> str:
    """Return the closing table."""
    lines = ["", f"{'gate':<16}{'seconds':>9}  result"]
    lines += [f"{each.name:<16}{each.seconds:>9.1f}  {each.word:<8} {each.outcome[:100]}" for each in results]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gates; return 0 when none failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.build.check", description="Run every gate.")
    parser.add_argument("--only", action="append", metavar="GATE", help="run this one; may be said again")
    parser.add_argument("--workers", default="", help="pytest's arguments that tell its workers")
    parser.add_argument("pytest", nargs="*", help="arguments for the tests, after --")
    options = parser.parse_args(arguments)
    every = gates(options.pytest, options.workers.split())
    chosen = [gate for gate in every if options.only is None or gate.name in options.only]
    if not chosen:
        parser.error("there is no such gate: " + ", ".join(gate.name for gate in every))
    # A stop from outside is told with the gates so far, and ends what runs.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[Result] = []
    try:
        for gate in chosen:
            results += [run(gate)]
    except KeyboardInterrupt:
        results.append(
            Result(name="interrupted", seconds=0.0, word="FAILED", outcome="the rest was not run", failed=True)
        )
    print(table(results), flush=True)
    failed = [each.name for each in results if each.failed]
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nno gate failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
