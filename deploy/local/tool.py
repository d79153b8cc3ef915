"""Run a command of the auth service on the local gateway's database: `python -m deploy.local.tool audit [ARG…]`.

The database may be running (the gateway runs) or not; it is left as it was found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.local import keep
from deploy.local.database import Database, DatabaseError
from deploy.local.stack import REPOSITORY
from deploy.local.topology import AUTH, DATABASE

_LEAVE_S: Final = 5
_INTERRUPTED: Final = 128 + signal.SIGINT
"""What shells tell of a command that Ctrl-C ended."""


def main(arguments: list[str]) -> int:
    """Run the command; give its exit code."""
    root = Path(os.environ.get("MOA_HOME", REPOSITORY / ".moa")).absolute()
    known = keep.read(root / "secrets.env")
    if not known:
        print(f"there is no gateway in {root}; `make run` makes one", file=sys.stderr)
        return 1
    url, database = os.environ.get("MOA_DATABASE_URL", ""), Database(root / DATABASE, follow=False)
    found_running = bool(url) or database.pid is not None
    try:
        if not url:
            database.start()
            url = database.create("moa")
        path = os.pathsep.join(filter(None, (str(REPOSITORY / "gen"), str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **known, "MOA_DATABASE_URL": url, "PYTHONPATH": path}
        line = [sys.executable, "-m", AUTH.module, *arguments]
        with subprocess.Popen(line, cwd=REPOSITORY, env=environment) as process:
            return _ended(process)
    except DatabaseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        if not found_running:
            database.stop()


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Return the command's exit code. Ctrl-C reaches the command too, which has a moment to say so."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            return process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise KeyboardInterrupt from None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
