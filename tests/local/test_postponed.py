"""Processes that are started with the first request that is for them."""

from __future__ import annotations

import threading

from deploy.local.postponed import Postponed
from services.router.adapters.large_processes import LargeProcesses


def test_they_are_started_once_a_request_has_come() -> None:
    """However many come, to however many processes; and never without one."""
    started: list[str] = []
    asked = threading.Event()

    def start() -> None:
        started.append("largerouter")
        asked.set()

    postponed = Postponed(start)
    for processes in (LargeProcesses(postponed.fd), LargeProcesses(postponed.fd)):
        processes.want()
        processes.want()
    assert asked.wait(10)
    postponed.close()
    Postponed(start).close()
    assert started == ["largerouter"]


def test_whoever_cannot_be_asked_harms_nobody() -> None:
    """Neither a launcher that has gone, nor none, costs a request anything."""
    postponed = Postponed(lambda: None)
    gone = LargeProcesses(postponed.fd)
    postponed.close()
    gone.want()
    LargeProcesses(None).want()
