"""Starting the auth process where it cannot start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def test_a_taken_port_ends_the_start_with_its_address(database_url: str) -> None:
    """Where another process listens, auth says so and ends; it neither hangs nor shows a trace."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "MOA_DATABASE_URL": database_url,
            "MOA_KEY_PEPPER": "pepper-of-the-tests",
            "MOA_SERVICE_TOKEN": "a-service-token-for-tests",
            "MOA_LISTEN": "127.0.0.1:0",
            "MOA_PUBLIC_LISTEN": address,
        }
        ended = subprocess.run(
            [sys.executable, "-m", "services.auth"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert f"cannot listen on {address}" in ended.stderr
    assert "Traceback" not in ended.stderr
