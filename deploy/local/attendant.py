"""What a launcher needs gRPC and a client of PostgreSQL for, done by a process that is forked for it and ends soon.

Both are loaded in the fork server anyway. The launcher itself, which lives as long as the gateway, would take 20 MB for
them and the time until they are loaded.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from deploy.local import database, first_login, readiness
from deploy.local.database import DatabaseError
from deploy.local.readiness import NotReady

ORDER_BYTES: Final = 2**16
_IDLE_S: Final = 1.0
"""An attendant that is asked nothing for so long ends."""
_LOOK_S: Final = 0.1
"""How often it is looked whether an answer is still of use."""
_TRIES: Final = 2

Alive = Callable[[], None]
"""Called every now and then; raises when waiting is no use any more."""


def _serves(alive: Alive, address: str, until: float, certificate: str | None) -> None:
    readiness.await_grpc(address, until=until, alive=alive, certificate=Path(certificate) if certificate else None)


def _made(_: Alive, url: str, name: str) -> None:
    database.make(url, name)


def _unclaimed(_: Alive, url: str) -> bool:
    return first_login.is_unclaimed(url)


SERVES, MADE, UNCLAIMED = "serves", "made", "unclaimed"
_WORK: Final[Mapping[str, Callable[..., Any]]] = {SERVES: _serves, MADE: _made, UNCLAIMED: _unclaimed}


class Ask(Protocol):
    """Has something done. Raises NotReady or DatabaseError where it fails, and what `alive` raises."""

    def __call__(self, what: str, *arguments: str | float | None, alive: Alive) -> Any:
        """Return what it gives."""


def here(what: str, *arguments: str | float | None, alive: Alive) -> Any:
    """Do it in this process."""
    return _WORK[what](alive, *arguments)


class Attendant:
    """Has it done by an attendant; in this process where none can be had.

    Args:
        fork: Makes one that is asked by a socket; raises OSError.
    """

    def __init__(self, fork: Callable[[socket.socket], object]) -> None:
        self._fork = fork
        self._guard = threading.Lock()
        self._orders: socket.socket | None = None

    def __call__(self, what: str, *arguments: str | float | None, alive: Alive) -> Any:
        """Return what it gives."""
        for _ in range(_TRIES):
            with contextlib.suppress(OSError):
                if answer := self._answered([what, *arguments], alive):
                    if "failed" in answer:
                        raise NotReady(answer["failed"])
                    return answer["value"]
            # It had ended meanwhile, or was killed.
        return here(what, *arguments, alive=alive)

    def close(self) -> None:
        """Let go of the attendant, which ends."""
        with self._guard:
            if self._orders is not None:
                self._orders.close()
                self._orders = None

    def _answered(self, order: list[str | float | None], alive: Alive) -> dict[str, Any]:
        """Return the answer; nothing where the attendant ended without one. Raises OSError where there is none."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self._guard:
                orders = self._orders or self._begun()
                try:
                    fds = array.array("i", [theirs.fileno()])
                    orders.sendmsg([json.dumps(order).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                except OSError:
                    orders.close()
                    self._orders = None
                    raise
            answered = select.poll()
            answered.register(ours, select.POLLIN)
            while not answered.poll(_LOOK_S * 1000):
                alive()
            data = ours.makefile("rb").read()
        return dict(json.loads(data)) if data else {}

    def _begun(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._fork(theirs)
            except BaseException:
                ours.close()
                raise
        self._orders = ours
        return ours


def main(orders: socket.socket) -> None:
    """Do what is asked, each in a thread of its own, until nothing is asked any more."""
    orders.settimeout(_IDLE_S)
    running: list[threading.Thread] = []
    while True:
        try:
            order, fds, _, _ = socket.recv_fds(orders, ORDER_BYTES, 1)
        except TimeoutError:
            running = [thread for thread in running if thread.is_alive()]
            if running:
                continue
            return
        if not order:
            return
        thread = threading.Thread(target=_answer, args=(json.loads(order), fds[0]), daemon=True)
        thread.start()
        running.append(thread)


def _answer(order: list[Any], reply: int) -> None:
    what, *arguments = order
    with socket.socket(fileno=reply) as link, contextlib.suppress(OSError):
        try:
            answer = {"value": here(what, *arguments, alive=lambda: None)}
        except (NotReady, DatabaseError) as error:
            answer = {"failed": str(error)}
        link.sendall(json.dumps(answer).encode())


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
    # Threads that still wait have nobody whom they could tell.
    os._exit(0)
