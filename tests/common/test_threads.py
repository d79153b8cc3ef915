"""gRPC's threads may be woken late, and the loop's may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_TOLD = """
import asyncio, json
from pathlib import Path
from services.common.rpc import threads

async def main():
    async with threads.late():
        tasks = [thread.name for thread in Path("/proc/self/task").iterdir()]
        print(json.dumps([int(Path("/proc", task, "timerslack_ns").read_text()) for task in tasks]))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no timer slack")
def test_only_grpcs_threads_may_be_late() -> None:
    """Of a process, the threads that gRPC looks for work with may be a tenth of a second late; the loop is not."""
    told = json.loads(subprocess.run([sys.executable, "-c", _TOLD], check=True, capture_output=True).stdout)
    loop, *others = told
    assert loop < 1_000_000
    assert len(others) > 4
    assert set(others) == {100_000_000}


def test_grpc_is_told_how_to_read_before_it_is_imported() -> None:
    """What the services set of gRPC is set before it reads it, and is a word that this release of gRPC knows."""
    code = "import sys, services; assert 'grpc' not in sys.modules; import grpc"
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert told.stderr == ""
