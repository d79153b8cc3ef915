"""Fork a module's processes for the tests: `python -m tests.forkserver MODULE LISTENING_FD` (see `tests.forking`)."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from deploy.local import child
from deploy.local.forked import PID_BYTES
from deploy.local.forkserver import become, bury
from tests.suite import imports, worker

_MORE = {
    "inference": (
        "inference.image.load",
        "inference.image.engine",
        "inference.text.model",
        "inference.text.engine",
        "inference.vision.load",
        "inference.vision.engine",
        "diffusers.StableDiffusionPipeline",
        "diffusers.UNet2DConditionModel",
        "diffusers.AutoencoderTiny",
        "transformers.CLIPTextModel",
        "transformers.CLIPTokenizer",
    ),
    worker.__name__: worker.PRELOADED,
}
"""What a module imports later, when it is first asked for a model."""


@dataclass(frozen=True)
class _Child:
    """A process that was forked for a worker."""

    pid: int
    reply: socket.socket
    """Where its end is told."""
    control: socket.socket
    """The worker's."""


class _Server:
    """What is watched: the socket of all workers, each worker's own, and the processes by their pidfds."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._controls: set[socket.socket] = set()
        self._children: dict[int, _Child] = {}
        self._watched = selectors.DefaultSelector()
        self._watched.register(listening, selectors.EVENT_READ)

    def asked(self) -> tuple[bytes, list[int]]:
        """Serve until a process is asked for, and return in it, with its order and its descriptors.

        Raises SystemExit when the last worker has gone.
        """
        while True:
            for key, _ in self._watched.select():
                if key.fileobj is self._listening:
                    self._join()
                elif key.fd in self._children:
                    self._watched.unregister(key.fd)
                    ended = self._children.pop(key.fd)
                    bury(key.fd, ended.pid, ended.reply)
                elif (order := self._read(key.fileobj)) is not None:  # type: ignore[arg-type]  # a control
                    return order

    def _join(self) -> None:
        control, _ = self._listening.accept()
        control.send(b"\0")
        self._controls.add(control)
        self._watched.register(control, selectors.EVENT_READ)

    def _read(self, control: socket.socket) -> tuple[bytes, list[int]] | None:
        """Take a worker's order; return it in the process that is forked for it."""
        asked: bytes = b""
        fds: list[int] = []
        with contextlib.suppress(ConnectionError):
            asked, fds, _, _ = socket.recv_fds(control, 2**20, 253)
        if not asked:
            self._leave(control)
            return None
        reply = socket.socket(fileno=fds[0])
        pid = os.fork()
        if pid == 0:
            self._forget()
            reply.close()
            return asked, fds[1:]
        pidfd = os.pidfd_open(pid)
        for fd in fds[1:]:
            os.close(fd)
        with contextlib.suppress(OSError):
            socket.send_fds(reply, [pid.to_bytes(PID_BYTES, "big")], [pidfd])
        self._children[pidfd] = _Child(pid, reply, control)
        self._watched.register(pidfd, selectors.EVENT_READ)
        return None

    def _leave(self, control: socket.socket) -> None:
        """Let a worker go, with what was forked for it."""
        self._watched.unregister(control)
        self._controls.discard(control)
        control.close()
        if not self._controls:
            raise SystemExit(0)
        for pidfd, child_of in self._children.items():
            if child_of.control is control:
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)

    def _forget(self) -> None:
        """Close all that is the server's, in a child."""
        self._watched.close()
        self._listening.close()
        for control in self._controls:
            control.close()
        for pidfd, other in self._children.items():
            os.close(pidfd)
            other.reply.close()


def main(module: str, listening: socket.socket) -> None:
    """Serve until the tests end. Returns in each forked process, which then is what was asked for."""
    _import(module)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise SystemExit(f"{module} has {threads} threads after its import: it cannot be forked")
    gc.collect()
    gc.freeze()
    mine = os.getpid()
    asked, fds = _Server(listening).asked()
    sys.argv[:] = [child.__name__, str(mine), module]
    become(fds, **json.loads(asked))


def _import(module: str) -> None:
    """Import what the module needs, and forget the module itself: it is run under another name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations at import
        package = importlib.import_module(module)
        if hasattr(package, "__path__"):
            importlib.import_module(f"{module}.__main__")
            del sys.modules[f"{module}.__main__"]
            del package.__main__
        else:
            del sys.modules[module]
        for name in _MORE.get(module, ()):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                above, _, part = name.rpartition(".")
                getattr(importlib.import_module(above), part)
    if module == worker.__name__:
        imports.take()


if __name__ == "__main__":
    _module, _fd = sys.argv[1], int(sys.argv[2])
    # Descriptors that were made elsewhere than in Python come along with whoever started this.
    os.closerange(3, _fd)
    os.closerange(_fd + 1, os.sysconf("SC_OPEN_MAX"))
    main(_module, socket.socket(fileno=_fd))
    child.main()
