"""Run a module for what it does and ends, and say how processes ended."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final


class Failed(Exception):
    """The module ended with an error. The message is its last line."""


_PLACE: Final = re.compile(r'  File "(.+)", line (\d+)')
"""Of a fault, in a traceback; the last one is where it happened."""
_CRASH: Final = "Fatal Python error: "
_CRASHED_AT: Final = re.compile(r'^Current thread .*\n  File "(.+)", line (\d+)', re.MULTILINE)


def run(module: str, *arguments: str, environment: Mapping[str, str], folder: Path) -> str:
    """Return what a module printed. Raises Failed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(last_line(done.stderr))
    return done.stdout


def ending(code: int) -> str:
    """Return how a process ended, in words, by its exit code (negative: a signal)."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def last_line(text: str) -> str:
    """Return the last line that says something; of a traceback's, with the file and the line of the fault behind it.

    Where threads follow in which a crash came, it is the line that names that.
    """
    _, crash, then = text.rpartition(_CRASH)
    if crash and not re.search(r"^\{", then, re.MULTILINE):
        place = _CRASHED_AT.search(then)
        return crash + then.partition("\n")[0] + (f" ({place[1]}, line {place[2]})" if place else "")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "it gave no reason"
    for line in reversed(lines[:-1]):
        if not line.startswith("  "):
            break
        if place := _PLACE.match(line):
            return f"{lines[-1]} ({place[1]}, line {place[2]})"
    return lines[-1]


def reason_in(path: Path) -> str:
    """Return why a process ended by itself, after a colon: its log's last line where it is a sentence; else nothing."""
    try:
        message = last_line(path.read_text(errors="replace"))
    except OSError:
        return ""
    # A line of the log is what it did last, not why it ended.
    return "" if message.startswith("{") else f": {message}"


def last_line_of(path: Path, *, behind: int = 0) -> str:
    """Return the last line of a log that says something, and where the log is.

    `behind`: how many bytes of it an earlier start wrote; a log that is shorter by now was begun anew.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return "it left no log"
    new = data[behind if len(data) >= behind else 0 :]
    return f"{last_line(new.decode(errors='replace'))} (log: {path})"
