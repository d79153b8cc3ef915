"""Run a module as a process that ends with its parent: `python -m deploy.local.child PARENT_PID MODULE [ARG…]`.

The parent may be killed with -9 and clean up nothing, so the kernel is asked to send SIGTERM (Linux). The request
stands across `exec`, so it also holds for Envoy. Elsewhere a child of a killed parent is left over.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the module."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        # The kernel watches the thread that made this process; the supervisor keeps that thread alive.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            # Whoever started it has said why it ended.
            raise SystemExit(1)
    sys.argv[:] = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
