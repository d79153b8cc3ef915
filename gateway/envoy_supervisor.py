"""Supervise Envoy's processes: start them, start again what dies, let running requests end when they are to stop.

Envoy cuts every stream on SIGTERM. So its processes run as the children of this script, which takes the signal, closes
the public port, waits for what runs, and only then passes the signal on. They share the ports: one that dies leaves its
new connections to the others, and is back within a moment. A script with the standard library alone, run in place of
the process that rendered the configuration: it costs some 5 MB for as long as the edge lives.

    envoy_supervisor.py DRAIN_S PROCESSES ADMIN_SOCKET COMMAND ARG…
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import struct
import sys
import time

_PR_SET_PDEATHSIG = 1
_PROCESS_MADVISE, _MADV_PAGEOUT = 440, 21
"""A system call, by its number on all of Linux's machines but alpha, and what it advises."""
_ASK_AGAIN_S = 0.05
_ADMIN_S = 2.0
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_RUNNING = "http.public.downstream_rq_active"
_STEADY_S = 10.0
"""Who lived this long does not die of its configuration."""
_QUICK_DEATHS = 5
"""After so many deaths of one process that were quicker, the edge ends."""
_SETTLED_S = 10.0
"""Who lived this long has done what its start alone needed."""
_PAUSE_S = 0.02
"""Before a process is started again; twice as long after each quick death."""


class _Child:
    """One process of Envoy, numbered from 1."""

    def __init__(self, number: int, command: list[str], admin: str) -> None:
        self.admin = admin.format(number)
        overlay = {"admin": {"address": {"pipe": {"path": self.admin}}}}
        self._command = command if number == 1 else [*command, "--config-yaml", json.dumps(overlay)]
        self.pid: int | None = None
        self.due = 0.0
        """When it is to be started, while it does not run (monotonic)."""
        self.settles: float | None = None
        """When what its start alone needed is given back, while that is still to be done."""
        self._started = 0.0
        self._deaths = 0

    def start(self) -> None:
        """Run it."""
        self.pid, self._started = _started(self._command), time.monotonic()
        self.settles = self._started + _SETTLED_S

    def ended(self) -> int | None:
        """Look whether it has ended: return its exit code then, 128 and the number where a signal ended it."""
        if self.pid is None:
            return None
        code = _code(self.pid)
        if code is not None:
            self.pid = self.settles = None
            lived = time.monotonic() - self._started
            self._deaths = 1 if lived > _STEADY_S else self._deaths + 1
            self.due = time.monotonic() + _PAUSE_S * 2**self._deaths
        return code

    def is_hopeless(self, code: int) -> bool:
        """Return whether it would only die again: it refused its configuration, or died too often."""
        refused = 0 < code < 128 and time.monotonic() - self._started < _STEADY_S
        return refused or self._deaths >= _QUICK_DEATHS


def main(drain_s: float, processes: int, admin: str, command: list[str]) -> int:
    """Run the command so many times until one is hopeless or all are to end; return the exit code."""
    # Waited for one by one: a handler could come between looking for a signal and waiting for one.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched = {*_ENDINGS, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    children = [_Child(number, command, admin) for number in range(1, processes + 1)]
    while True:
        for child in children:
            if child.pid is None and child.due <= time.monotonic():
                child.start()
            if child.pid is not None and child.settles is not None and child.settles <= time.monotonic():
                give_back(child.pid)
                child.settles = None
        number = _signalled(watched, children)
        for child in children:
            code = child.ended()
            if code is not None:
                _say(code, again=not child.is_hopeless(code))
                if child.is_hopeless(code):
                    _end(children)
                    return code
        if number in _ENDINGS:
            break
    _drain(children, drain_s)
    _end(children)
    return 0


def _signalled(watched: set[signal.Signals], children: list[_Child]) -> int | None:
    """Wait for a signal; return None where something is to be done before one comes."""
    nexts = [child.due if child.pid is None else child.settles for child in children]
    dues = [due for due in nexts if due is not None]
    if not dues:
        return signal.sigwait(watched)
    result = signal.sigtimedwait(watched, max(0.0, min(dues) - time.monotonic()))
    return result.si_signo if result else None


def give_back(pid: int) -> bool:
    """Hand the pages of a process's program back to the system; it reads again those that it needs.

    Envoy's start touches 50 MB of its program, of which 20 serve requests. Return whether that was allowed: Linux asks
    for CAP_SYS_NICE, which root has. Pages that another process has mapped too stay.
    """
    try:
        spans = _program(pid)
        process = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return False
    try:
        vectors = b"".join(struct.pack("@NN", start, end - start) for start, end in spans)
        libc = ctypes.CDLL(None)
        given = libc.syscall(_PROCESS_MADVISE, process, vectors, ctypes.c_size_t(len(spans)), _MADV_PAGEOUT, 0)
        return int(given) >= 0
    finally:
        os.close(process)


def _program(pid: int) -> list[tuple[int, int]]:
    """Return where a process has its program's constants and code, which are as the file has them."""
    # Without pathlib, which takes memory for as long as the edge lives.
    path = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
    spans: list[tuple[int, int]] = []
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
        for line in maps:
            span, mode, _, _, _, *name = line.rstrip("\n").split(maxsplit=5)
            if name == [path] and mode in ("r--p", "r-xp"):
                start, end = span.split("-")
                spans.append((int(start, 16), int(end, 16)))
                # Behind the code lie constants that hold addresses, which were written at the start.
                if mode == "r-xp":
                    break
    return spans


def _end(children: list[_Child]) -> None:
    """End what still runs, at once."""
    for child in children:
        if child.pid is not None and _code(child.pid) is None:
            os.kill(child.pid, signal.SIGTERM)
            os.waitpid(child.pid, 0)


def _say(code: int, *, again: bool) -> None:
    how = f"signal {code - 128}" if code > 128 else f"exit code {code}"
    line = {"event": "envoy.ended", "process": "edge", "level": "error", "how": how, "again": again}
    os.write(1, json.dumps(line).encode() + b"\n")


def _started(command: list[str]) -> int:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    supervisor = os.getpid()
    child = os.fork()
    if child:
        return child
    # Nobody would end it in order when this script is killed with -9.
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execv(command[0], command)  # noqa: S606  # no shell is wanted
    except OSError as error:
        os.write(2, f"the edge cannot start: {command[0]}: {error.strerror}\n".encode())
        os._exit(1)


def _code(child: int) -> int | None:
    """Return the exit code of the child if it has ended: 128 and the number where a signal ended it."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return 0
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _drain(children: list[_Child], drain_s: float) -> None:
    """Close the public port and wait for the requests that run, `drain_s` at most or until asked to stop again."""
    until = time.monotonic() + drain_s
    if drain_s <= 0:
        return
    # The first tells callers that stay connected to leave, the second closes the port.
    for how in ("graceful&inboundonly", "inboundonly"):
        for child in children:
            asked(child.admin, "POST", f"/drain_listeners?{how}")
    while time.monotonic() < until and any(_is_busy(child) for child in children):
        if signal.sigpending() & set(_ENDINGS):
            return
        time.sleep(_ASK_AGAIN_S)


def _is_busy(child: _Child) -> bool:
    """Return whether a process runs and serves requests."""
    if child.pid is None or os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        return False
    match = re.search(re.escape(_RUNNING) + r": (\d+)", asked(child.admin, "GET", f"/stats?filter=^{_RUNNING}$"))
    return match is not None and match[1] != "0"


def asked(admin: str, method: str, path: str) -> str:
    """Return what Envoy's admin interface answers; nothing where it does not."""
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
    raise SystemExit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
