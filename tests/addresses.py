"""Callers at addresses of their own on loopback, whose pace is not that of other tests' callers."""

from __future__ import annotations

from typing import Any

from requests.adapters import HTTPAdapter


class From(HTTPAdapter):
    """Asks from an address, as `127.1.0.1`, to be mounted in a session."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pool of connections."""
        super().init_poolmanager(*args, source_address=(self._address, 0), **options)
