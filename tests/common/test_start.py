"""What a process does not load before it needs it."""

from __future__ import annotations

import os
import subprocess
import sys

_LOADED = """
import sys
import services.auth.__main__, services.desk.__main__, services.router.__main__, services.tasks.__main__
print(*sys.modules)
"""


def test_services_that_ask_no_provider_load_no_http_client() -> None:
    """Nor what makes a console pretty: each is a tenth of a start and of the memory of nine processes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "structlog" in loaded
    assert not loaded & {"aiohttp", "botocore", "rich", "torch"}
