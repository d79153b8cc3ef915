"""Starting the auth process where it cannot start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from services.auth.__main__ import bootstrap
from services.auth.adapters.key_pepper import forget_pepper, see_pepper
from services.auth.migrations import migrate
from services.auth.settings import DatabaseSettings
from services.common import settings

SETTINGS = {
    "MOA_KEY_PEPPER": "pepper-of-the-tests",
    "MOA_SERVICE_TOKEN": "a-service-token-for-tests",
    "MOA_LISTEN": "127.0.0.1:0",
    "MOA_PUBLIC_LISTEN": "127.0.0.1:0",
}


def _refused(**given: str) -> str:
    """Start auth, which ends by itself; return what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "services.auth"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **SETTINGS, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_taken_port_ends_the_start_with_its_address(database_url: str) -> None:
    """Where another process listens, auth says so and ends; it neither hangs nor shows a trace."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = _refused(MOA_DATABASE_URL=database_url, MOA_PUBLIC_LISTEN=address)
    assert f"cannot listen on {address}" in said


async def test_another_pepper_than_the_databases(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restored database beside new secrets is told at the start, and not by every caller's 401."""
    migrate(database_url)
    forget_pepper(database_url)  # of the test before
    see_pepper(database_url, b"that of the backup")
    assert "MOA_KEY_PEPPER is not the one that this database was used with before" in _refused(
        MOA_DATABASE_URL=database_url
    )
    monkeypatch.setenv("MOA_KEY_PEPPER", SETTINGS["MOA_KEY_PEPPER"])
    monkeypatch.setenv("MOA_DATABASE_URL", database_url)
    with pytest.raises(SystemExit, match="forget-pepper"):
        await bootstrap(settings.read(DatabaseSettings))
    forget_pepper(database_url)
    config = settings.read(DatabaseSettings)
    assert "api_key" in await bootstrap(config)
    assert await bootstrap(config) == {"exists": True}
    forget_pepper(database_url)
    again = await bootstrap(config)
    assert again.keys() == {"account_id", "key_id", "api_key"}
    assert await bootstrap(config) == {"exists": True}
    see_pepper(database_url, SETTINGS["MOA_KEY_PEPPER"].encode())
    with pytest.raises(SystemExit):
        see_pepper(database_url, b"that of the backup")
