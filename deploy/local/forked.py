"""A forked process, as whoever asked a fork server for it sees it."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

PID_BYTES: Final = 8


class Forked:
    """A forked process, with what its starter may do of `subprocess.Popen`.

    Args:
        reply: Where the server sends the process's id and a descriptor of it, and in the end its exit code.
    """

    def __init__(self, reply: socket.socket) -> None:
        answer, fds, _, _ = socket.recv_fds(reply, PID_BYTES, 1)
        if not answer:
            reply.close()
            raise OSError("the fork server has ended; its last words are in its output")
        self.pid = int.from_bytes(answer, "big")
        self.returncode: int | None = None
        self._pidfd = fds[0]
        self._reply = reply
        self._waiting = threading.Lock()
        # A descriptor that was closed may be another process's right after.
        self._naming = threading.Lock()

    @classmethod
    def asked(cls, control: socket.socket, order: Mapping[str, Any], given: Sequence[int]) -> Self:
        """Ask a server for a process. Raises OSError where it is gone.

        Args:
            control: Where it is asked.
            order: What `deploy.local.forkserver.become` is told.
            given: The descriptors that go with the order.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fds = array.array("i", [theirs.fileno(), *given])
            try:
                control.sendmsg([json.dumps(order).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            except OSError:
                ours.close()
                raise
        return cls(ours)

    def wait(self) -> int:
        """Return the exit code once the process has ended: negative, of a signal."""
        with self._waiting:
            if self.returncode is None:
                answer = b""
                with contextlib.suppress(ConnectionError):
                    answer = self._reply.recv(PID_BYTES)
                self._reply.close()
                with self._naming:
                    # Who kills the server takes its children along.
                    self.returncode = int.from_bytes(answer, "big", signed=True) if answer else -signal.SIGTERM
                    os.close(self._pidfd)
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, where the process has ended."""
        with self._naming:
            if self.returncode is not None:
                return self.returncode
            ended = select.poll()
            ended.register(self._pidfd, select.POLLIN)
            if not ended.poll(0):
                return None
        return self.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, where the process has not ended."""
        with self._naming, contextlib.suppress(OSError):
            if self.returncode is None:
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)
