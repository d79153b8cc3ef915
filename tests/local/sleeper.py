"""A process that a test keeps running: says on standard output that it is there, ends on SIGTERM unless told not to."""

from __future__ import annotations

import os
import signal
import threading

if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(f"up {os.getpid()}", flush=True)
threading.Event().wait()
