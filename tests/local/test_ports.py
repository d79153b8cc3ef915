"""Every process says which port it cannot have, and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY
from deploy.local.topology import EDGE, PROCESSES, Process
from services.auth.migrations import migrate


@pytest.mark.parametrize("variable", ["MOA_LISTEN", "MOA_METRICS_PORT"])
@pytest.mark.parametrize("process", [p for p in PROCESSES if p is not EDGE], ids=lambda process: process.name)
def test_a_taken_port(process: Process, variable: str, database_url: str, tmp_path: Path) -> None:
    """Somebody else's port ends a process with a sentence that names it: no trace, and nothing hangs."""
    migrate(database_url)
    ports = Ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = {
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY / 'gen'}:{REPOSITORY}",
            "MOA_SERVICE_TOKEN": "a-service-token-for-tests",
            "MOA_KEY_PEPPER": "pepper-of-the-tests",
            "MOA_DATABASE_URL": database_url,
            "MOA_STATE_DIR": str(tmp_path / "state"),
            "MOA_STORE_DIR": str(tmp_path / "objects"),
            "MOA_PUBLIC_URL": "http://127.0.0.1",
            "MOA_DRAIN_S": "0",
            "MOA_PUBLIC_LISTEN": f"127.0.0.1:{ports.any()}",
            "MOA_LISTEN": f"127.0.0.1:{ports.any()}",
            "MOA_METRICS_PORT": str(ports.any()),
        }
        environment[variable] = address if variable == "MOA_LISTEN" else address.rpartition(":")[2]
        ended = subprocess.run(
            [sys.executable, "-m", process.module],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert ended.returncode == 1
    assert f"cannot listen on {address}" in ended.stderr
    assert "Traceback" not in ended.stderr
