"""`make reload`: have the gateway that runs in MOA_HOME bring in what has changed, one process after another."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

from deploy.local.stack import REPOSITORY

SIGNAL = signal.SIGUSR1
"""What the launcher takes for the wish to reload."""


def main() -> int:
    """Ask the launcher; return 1 where none runs. The launcher's terminal tells what becomes of it."""
    root = Path(os.environ.get("MOA_HOME", REPOSITORY / ".moa")).absolute()
    try:
        with (root / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = int((root / "lock").read_text())
        os.kill(pid, SIGNAL)
        print(f"asked the gateway in {root} to reload (process {pid}); its terminal tells how far it is")
        return 0
    except OSError:
        pass
    print(f"no gateway runs in {root}; `make run` starts one", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
