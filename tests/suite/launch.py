"""Stand for a worker that is forked: `python -I -S launch.py -u -c BOOTSTRAP`, as execnet starts an interpreter.

It imports nothing of ours, so that it costs no more than 20 ms. It has the fork server of `tests.suite.worker` fork the
worker, with its own standard streams, and ends with the worker's exit code; the server ends a worker whose stand-in is
gone.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys

_PID_BYTES = 8


def main(sockets: str, bootstrap: str) -> int:
    """Have the worker forked and wait for its end; return its exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.connect(f"{sockets}/tests.suite.worker.sock")
        if not control.recv(1):
            return 1  # it said why
        ours, theirs = socket.socketpair()
        umask = os.umask(0)
        os.umask(umask)
        order = {
            "environment": dict(os.environ),
            "arguments": [bootstrap, f"{umask:o}"],
            "folder": os.getcwd(),  # noqa: PTH109
            "fds": [0, 1],
        }
        with theirs:
            given = array.array("i", [theirs.fileno(), 2, 0, 1])
            control.sendmsg([json.dumps(order).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        # Whoever reads from the worker is to see its end.
        with open(os.devnull, "r+b") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
        _, fds, _, _ = socket.recv_fds(ours, _PID_BYTES, 1)
        for fd in fds:
            os.close(fd)
        code = ours.recv(_PID_BYTES)
        return int.from_bytes(code, "big", signed=True) if code else 1


if __name__ == "__main__":
    raise SystemExit(main(os.environ["TESTS_FORK_SERVERS"], sys.argv[-1]))
