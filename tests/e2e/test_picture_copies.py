"""Large pictures, in the copies that lie in a process amid each of its works."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests import forking

MOST = 2.15
"""Two, and what the works allocate beside."""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
async def test_no_work_has_more_than_two_copies_of_a_large_body() -> None:
    """Of a chat with four pictures and of an edit: as the router reads them, and the services ask a provider."""
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": f"gen{os.pathsep}."}
    child = await forking.begun("tests.e2e.copies", environment, output=writing)
    os.close(writing)
    with os.fdopen(reading) as printed:
        found = json.loads(printed.read())
    assert await child.wait() == 0
    assert len(found) == 6
    assert {work: copies for work, copies in found.items() if copies > MOST} == {}
