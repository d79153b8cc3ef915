"""The clocks of `make hosts`, in a process of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.container.faults import SKEW_S, Clocks

PROGRAM = """
import datetime, threading, time
print(time.time())
input()
print(datetime.datetime.now(datetime.UTC).timestamp())
began = time.monotonic()
threading.Event().wait(0.05)
print(time.monotonic() - began)
"""


def test_a_clock_is_set_off_while_a_process_runs_and_what_waits_does_not_notice(tmp_path: Path) -> None:
    """The time of day is minutes behind from one moment to the next, and a wait lasts as long as it was to."""
    clocks = Clocks(tmp_path)
    if not clocks.possible:
        pytest.skip("no C compiler")
    words = clocks.words_of("one")
    there = [word.partition("=") for word in words if "=" in word]
    environment = {name: value.replace("/skew/", f"{tmp_path}/") for name, _, value in there}
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PROGRAM],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        right = float(process.stdout.readline())
        subprocess.run(clocks.line("one", -SKEW_S), check=True)
        process.stdin.write("\n")
        process.stdin.close()
        wrong, waited = float(process.stdout.readline()), float(process.stdout.readline())
    assert process.returncode == 0
    assert -SKEW_S <= wrong - right < -SKEW_S + 60
    assert 0.05 <= waited < 60
