"""What a gateway does while nobody calls."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bench.idle import SETTLED_S, measured
from tests import stacks

MOST_WAKES_PER_S = 25
"""Of a process: 20 are meant, and gRPC's idle threads wake each other now and then. Polling cost 48 to 83."""
SECONDS = 20


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="wake-ups are read from /proc")
def test_an_idle_gateway_sleeps(tmp_path: Path) -> None:
    """No process looks for work many times a second: it is told when there is some."""
    # Tests have the access log written twenty times a second.
    with stacks.gateway(tmp_path, environment={"MOA_EDGE_LOG_FLUSH_S": "1"}) as stack:
        time.sleep(SETTLED_S)
        found = {idle.name: idle.most_wakes_per_s for idle in measured(stack, SECONDS)}
    assert len(found) == len(stack.names) + 1
    assert max(found.values()) < MOST_WAKES_PER_S, found
