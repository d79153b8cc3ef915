"""Let others go first: the priority of a process for work that nobody is kept waiting by."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import time
from pathlib import Path
from typing import Final

_AUTOGROUP: Final = Path("/proc/self/autogroup")
_TRIES: Final = 5
_APART_S: Final = 0.11
"""Linux takes one such change each tenth of a second, from all processes without privileges together."""
_SET_ATTRIBUTES: Final = {"x86_64": 314, "aarch64": 274}
"""The number of sched_setattr(2), which libc does not have, by machine."""
_SLICE_NS: Final = 100_000_000
"""The longest that Linux takes."""


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of sched_setattr(2), as its first version had it."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def yield_to_others(nice: int) -> None:
    """Lower this process's priority by so much, against all processes of the machine.

    Where Linux groups processes by session (sched(7), "The autogroup feature"), a nice value counts within the session
    alone, and every service has one of its own: a helper process of a service took as much time from another service
    as that service had itself. So the process leaves for a session of its own, whose priority is lowered too.
    """
    _take_long_slices(os.nice(nice))
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


def _take_long_slices(nice: int) -> None:
    """Ask for the longest turns of a processor, so that whoever wakes up takes it from this process at once.

    Linux 6.12 and later lets a process go on to the end of its turn before another, of whatever priority, that has
    turns as long (1.4 ms with two processors). A small request wakes up a dozen threads; beside busy processes of lower
    priority, what a tenth of them waited longest was half a millisecond longer than without any, and with long turns a
    tenth of that. Elsewhere this does nothing. Threads that are started later have it too.
    """
    number = _SET_ATTRIBUTES.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return
    wanted = _Attributes(size=ctypes.sizeof(_Attributes), nice=nice, runtime_ns=_SLICE_NS)
    ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0)
