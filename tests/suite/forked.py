"""What `test_forking` forks: it tells what it is, reads a descriptor, and ends as it is told."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    wanted = os.environ["WANTED"]
    with os.fdopen(int(os.environ["FD"])) as file:
        read = file.read()
    # The interpreter may set LC_CTYPE for itself.
    told = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
    open_fds = [fd for fd in range(1024) if Path(f"/proc/self/fd/{fd}").exists()]
    print(json.dumps([told, str(Path.cwd()), read, sys.argv[1:], open_fds, os.getsid(0) == os.getpid()]), flush=True)
    if wanted == "sleep":
        signal.pause()
    sys.exit(int(wanted))
