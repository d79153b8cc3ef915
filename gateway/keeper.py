"""Keep Envoy: start it, let its running requests end when it is to stop, end with it.

Envoy cuts every stream on SIGTERM. So it runs as the child of this script, which takes the signal, closes the public
port, waits for what runs, and only then passes the signal on. A script with the standard library alone, run in place
of the process that rendered the configuration: it costs some 9 MB for as long as the edge lives.

    keeper.py DRAIN_S ADMIN_SOCKET COMMAND ARG…
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sys
import time

_PR_SET_PDEATHSIG = 1
_ASK_AGAIN_S = 0.05
_ADMIN_S = 2.0
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_RUNNING = "http.public.downstream_rq_active"


def main(drain_s: float, admin: str, command: list[str]) -> int:
    """Run the command until it ends or is to end; give its exit code."""
    # Waited for one by one: a handler could come between looking for a signal and waiting for one.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched = {*_ENDINGS, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = _started(command)
    while True:
        number = signal.sigwait(watched)
        code = _code(child)
        if code is not None:
            return code
        if number in _ENDINGS:
            break
    _drain(child, admin, drain_s)
    if _code(child) is None:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    return 0


def _started(command: list[str]) -> int:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    # Nobody would end it in order when this script is killed with -9.
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execv(command[0], command)  # noqa: S606  # no shell is wanted
    except OSError as error:
        os.write(2, f"the edge cannot start: {command[0]}: {error.strerror}\n".encode())
        os._exit(1)


def _code(child: int) -> int | None:
    """Give the exit code of the child if it has ended: 128 and the number where a signal ended it."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return 0
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _drain(child: int, admin: str, drain_s: float) -> None:
    """Close the public port and wait for the requests that run, `drain_s` at most or until asked to stop again."""
    until = time.monotonic() + drain_s
    # The first tells callers that stay connected to leave, the second closes the port.
    if drain_s <= 0 or not _asked(admin, "POST", "/drain_listeners?graceful&inboundonly"):
        return
    _asked(admin, "POST", "/drain_listeners?inboundonly")
    while time.monotonic() < until and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        found = re.search(re.escape(_RUNNING) + r": (\d+)", _asked(admin, "GET", f"/stats?filter=^{_RUNNING}$"))
        if found is None or found[1] == "0" or signal.sigpending() & set(_ENDINGS):
            return
        time.sleep(_ASK_AGAIN_S)


def _asked(admin: str, method: str, path: str) -> str:
    """Give what Envoy's admin interface answers; nothing where it does not."""
    request = f"{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_ADMIN_S)
        try:
            link.connect(admin)
            link.sendall(request.encode())
            while piece := link.recv(65536):
                answer += piece
        except OSError:
            return ""
    return answer.decode(errors="replace") if b" 200 " in answer[:16] else ""


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
