"""Fork a module's processes for the tests: `python -m tests.forkserver MODULE CONTROL_FD` (see `tests.forking`)."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import warnings
from pathlib import Path

from deploy.local import child

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
    )
}
"""What a module imports later, when it is first asked for a model."""
_FIRST_FREE_FD = 256
_PID_BYTES = 8


def main(module: str, control: socket.socket) -> None:
    """Serve until the tests end. Returns in each forked process, which then is what was asked for."""
    _import(module)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise SystemExit(f"{module} has {threads} threads after its import: it cannot be forked")
    gc.collect()
    gc.freeze()
    control.send(b"\0")
    watched = selectors.DefaultSelector()
    watched.register(control, selectors.EVENT_READ)
    replies: dict[int, tuple[int, socket.socket]] = {}
    mine = os.getpid()
    while True:
        for key, _ in watched.select():
            if key.fileobj is not control:
                watched.unregister(key.fd)
                _bury(key.fd, *replies.pop(key.fd))
                continue
            asked, fds, _, _ = socket.recv_fds(control, 2**20, 253)
            if not asked:
                raise SystemExit(0)
            reply = socket.socket(fileno=fds[0])
            pid = os.fork()
            if pid == 0:
                watched.close()
                control.close()
                for pidfd, (_, other) in replies.items():
                    os.close(pidfd)
                    other.close()
                reply.close()
                sys.argv[:] = [child.__name__, str(mine), module]
                _become(fds[1:], **json.loads(asked))
                return
            pidfd = os.pidfd_open(pid)
            for fd in fds[1:]:
                os.close(fd)
            with contextlib.suppress(OSError):
                socket.send_fds(reply, [pid.to_bytes(_PID_BYTES, "big")], [pidfd])
            replies[pidfd] = (pid, reply)
            watched.register(pidfd, selectors.EVENT_READ)


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


def _become(
    given: list[int], *, environment: dict[str, str], arguments: list[str], folder: str, fds: list[int]
) -> None:
    """Leave of the server nothing but what it imported."""
    sys.argv += arguments
    os.setsid()
    # Out of the way first: the numbers that they shall have may be taken by one another.
    free = max(_FIRST_FREE_FD, *(fd + 1 for fd in fds)) if fds else _FIRST_FREE_FD
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in given]
    for fd in given:
        os.close(fd)
    for fd, wanted in zip([high[0], *high], [1, 2, *fds], strict=True):
        os.dup2(fd, wanted)
    for fd in high:
        os.close(fd)
    os.chdir(folder)
    os.umask(0o077)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _bury(pidfd: int, pid: int, reply: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with contextlib.suppress(OSError):
        reply.send(os.waitstatus_to_exitcode(status).to_bytes(_PID_BYTES, "big", signed=True))
    reply.close()


if __name__ == "__main__":
    _module, _fd = sys.argv[1:]
    main(_module, socket.socket(fileno=int(_fd)))
    child.main()
