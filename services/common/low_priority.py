"""Let others go first: the priority of a process for work that nobody is kept waiting by."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

_AUTOGROUP: Final = Path("/proc/self/autogroup")
_TRIES: Final = 5
_APART_S: Final = 0.11
"""Linux takes one such change each tenth of a second, from all processes without privileges together."""


def yield_to_others(nice: int) -> None:
    """Lower this process's priority by so much, against all processes of the machine.

    Where Linux groups processes by session (sched(7), "The autogroup feature"), a nice value counts within the session
    alone, and every service has one of its own: a helper process of a service took as much time from another service
    as that service had itself. So the process leaves for a session of its own, whose priority is lowered too.
    """
    os.nice(nice)
    with contextlib.suppress(OSError):  # it leads a session already
        os.setsid()
    for _ in range(_TRIES):
        try:
            _AUTOGROUP.write_text(str(nice))
        except BlockingIOError:
            time.sleep(_APART_S)
        except OSError:  # another kernel, or one without the feature
            return
        else:
            return
