"""Ports for processes of one machine."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

# Below 32768 the kernel hands nothing out by itself, so a chosen port is not taken by an outgoing connection.
_LOW, _HIGH = 20_000, 32_000


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether nothing listens on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class Ports:
    """Hands out loopback ports, each once."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._random = random.Random()  # noqa: S311  # spreads parallel runs apart, nothing more

    def preferring(self, wanted: int) -> int:
        """Give the wanted port when it is free, else any."""
        if wanted not in self._given and is_free(wanted):
            self._given.add(wanted)
            return wanted
        return self.any()

    def any(self) -> int:
        """Give a free port below 32768."""
        for port in self._candidates():
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise OSError("no free port")

    def _candidates(self) -> Iterable[int]:
        return (self._random.randrange(_LOW, _HIGH) for _ in range(1000))
