"""Run a command as `nobody`: PostgreSQL refuses to run as root.

Used as a script: `python unprivileged.py COMMAND ARG…`. On Linux the process keeps the one capability that lets it
pass folders it could not enter (`/root` is closed to others on most systems), so nothing has to be opened up.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys

_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def nobody() -> pwd.struct_passwd:
    """Return the account that root's unprivileged work runs as."""
    return pwd.getpwnam("nobody")


def _become(user: pwd.struct_passwd) -> None:
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    if libc is not None:
        # See capabilities(7): effective, permitted and inheritable, low words first; then ambient, to survive exec.
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        mask = 1 << _CAP_DAC_OVERRIDE
        if libc.capset(header, (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)) == 0:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    _become(nobody())
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  # the caller names the program
