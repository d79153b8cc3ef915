"""`make reload`: have the gateway that runs in MOA_HOME bring in what has changed, one process after another.

`make reload ONLY=edge`: the edge's configuration and certificate alone, without an end of any call.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Final

from deploy.local.stack import REPOSITORY
from deploy.local.topology import EDGE

SIGNALS: Final = {"": signal.SIGUSR1, EDGE.name: signal.SIGUSR2}
"""What the launcher takes for the wish to reload everything, or one process alone."""


def launcher_code(folder: Path = Path(__file__).parent) -> str:
    """Return what tells the launcher's code from any other: a reload exchanges all processes but the launcher."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        with contextlib.suppress(OSError):
            found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def _heeds(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler of a signal, which would end it else; as far as the system tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is None or bool(int(caught[1], 16) >> (number - 1) & 1)


def main(only: str) -> int:
    """Ask the launcher; return 1 where none runs, 2 for what cannot be asked. Its terminal tells what becomes of it."""
    if only not in SIGNALS:
        print(f"ONLY={only}: the {EDGE.name} alone can be reloaded, or everything", file=sys.stderr)
        return 2
    root = Path(os.environ.get("MOA_HOME", REPOSITORY / ".moa")).absolute()
    try:
        with (root / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = int((root / "lock").read_text())
        if not _heeds(pid, SIGNALS[only]):
            print("the gateway was started by a release that knows no ONLY; say `make reload`", file=sys.stderr)
            return 2
        os.kill(pid, SIGNALS[only])
        what = f"reload its {only}" if only else "reload"
        print(f"asked the gateway in {root} to {what} (process {pid}); its terminal tells how far it is")
        return 0
    except OSError:
        pass
    print(f"no gateway runs in {root}; `make run` starts one", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main("".join(sys.argv[1:2])))
