"""Keep a set of processes running: start them, start them again when they die, end them together."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from deploy.local.logs import Files

_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 30.0
"""A process that lived this long has recovered: its next death is a first one."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to run. `module` is run by this interpreter and inherits `fds`; its output goes to the end of `log`."""

    name: str
    module: str
    environment: Mapping[str, str]
    log: Path
    fds: tuple[int, ...] = ()


class Started(Protocol):
    """A started process: what a supervisor needs of `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def wait(self) -> int:
        """Return the exit code (negative: a signal) once the process has ended."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, where the process has not ended."""

    def kill(self) -> None:
        """End the process at once."""


def started(spec: Spec, folder: Path, output: BinaryIO) -> subprocess.Popen[bytes]:
    """Start a process that ends with the calling thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.local.child", str(os.getpid()), spec.module],
        cwd=folder,
        env=dict(spec.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C in the owner's terminal is for the owner, who ends its processes in order.
        start_new_session=True,
        pass_fds=spec.fds,
        umask=0o077,
    )


@dataclass(kw_only=True)
class _Slot:
    spec: Spec
    process: Started | None = None
    started: float = 0.0
    deaths: int = 0
    due: float | None = None
    """When it is to be started again (monotonic)."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set while no process runs."""


class Supervisor:
    """Runs processes from one thread of its own, which lives until `close`: they die with that thread.

    Args:
        folder: The processes' working folder.
        on_death: Told the name and the exit code (negative: a signal) of a process that ended unasked.
        start: Starts a process in a working folder, with its output; called in the supervisor's thread.
        logs: Where the processes' output goes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_death: Callable[[str, int], None],
        start: Callable[[Spec, Path, BinaryIO], Started] = started,
        logs: Files | None = None,
    ) -> None:
        self._folder = folder
        self._start = start
        self._logs = logs or Files()
        self._on_death = on_death
        self._slots: dict[str, _Slot] = {}
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._wanted: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, spec: Spec) -> None:
        """Start a process and keep it running. Returns when it was made, not when it is ready."""
        self._ask(lambda: self._begin(spec))

    def pid(self, name: str) -> int | None:
        """Return the process's id; None while it is down."""
        slot = self._slots.get(name)
        return slot.process.pid if slot and slot.process and not slot.ended.is_set() else None

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal; return once the process is gone. It is then started again."""
        slot = self._slots[name]
        process = slot.process
        if process is not None and process.returncode is None:
            process.send_signal(number)
            process.wait()

    def stop(self, names: Sequence[str], *, wait_s: float) -> None:
        """End processes with SIGTERM, and with SIGKILL what has not ended in time. They stay down."""
        self._ask(lambda: self._dismiss(names))
        until = time.monotonic() + wait_s
        for name in names:
            slot = self._slots.get(name)
            if slot is None or slot.process is None:
                continue
            if not slot.ended.wait(max(0.0, until - time.monotonic())):
                slot.process.kill()
                slot.ended.wait()

    def close(self) -> None:
        """End whatever still runs, and the thread."""
        self.stop(list(self._slots), wait_s=0.0)
        self._orders.put(None)
        self._thread.join()

    def _ask(self, order: Callable[[], None]) -> None:
        """Have the thread do something; return when it is done, raise what it raised."""
        done = threading.Event()
        failed: list[BaseException] = []

        def carry_out() -> None:
            try:
                order()
            except BaseException as error:  # handed to the caller
                failed.append(error)
            finally:
                done.set()

        self._orders.put(carry_out)
        done.wait()
        if failed:
            raise failed[0]

    def _work(self) -> None:
        while True:
            dues = [slot.due for slot in self._slots.values() if slot.due is not None]
            wait = max(0.0, min(dues) - time.monotonic()) if dues else None
            try:
                order = self._orders.get(timeout=wait)
            except queue.Empty:
                self._restart_due()
                continue
            if order is None:
                return
            order()

    def _begin(self, spec: Spec) -> None:
        slot = self._slots.setdefault(spec.name, _Slot(spec=spec))
        slot.spec, slot.due = spec, None
        self._wanted.add(spec.name)
        self._spawn(slot)

    def _dismiss(self, names: Sequence[str]) -> None:
        for name in names:
            self._wanted.discard(name)
            slot = self._slots.get(name)
            if slot is None:
                continue
            slot.due = None
            if slot.process is not None and not slot.ended.is_set():
                slot.process.send_signal(signal.SIGTERM)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots.values():
            if slot.due is not None and slot.due <= now:
                slot.due = None
                self._spawn(slot)

    def _spawn(self, slot: _Slot) -> None:
        with self._logs.open(slot.spec.log) as output:
            slot.process = self._start(slot.spec, self._folder, output)
        slot.started = time.monotonic()
        slot.ended = threading.Event()
        waiter = threading.Thread(target=self._await_end, args=(slot, slot.process, slot.ended), daemon=True)
        waiter.start()

    def _await_end(self, slot: _Slot, process: Started, ended: threading.Event) -> None:
        code = process.wait()
        ended.set()
        self._orders.put(lambda: self._buried(slot, process, code))

    def _buried(self, slot: _Slot, process: Started, code: int) -> None:
        if slot.process is not process or slot.spec.name not in self._wanted:
            return
        lived = time.monotonic() - slot.started
        slot.deaths = 0 if lived > _STEADY_S else slot.deaths
        slot.due = time.monotonic() + _BACKOFF_S[min(slot.deaths, len(_BACKOFF_S) - 1)]
        slot.deaths += 1
        self._on_death(slot.spec.name, code)
