"""The catalogue as it is now: reloaded when its file changes, kept when the change is bad."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Gauge

from services.catalogue._error import CatalogueError
from services.catalogue._load import Check, load, reload
from services.catalogue._snapshot import Catalogue
from services.common import logs

_log = logs.get("catalogue")
REFUSED = Gauge(
    "moa_catalogue_refused", "1 while the catalogue's file has a fault, and what was read before it is kept; else 0."
)


class Watched:
    """Holds the current snapshot. Read `now` once a request, so that one request sees one catalogue.

    `environment` decides which providers are configured; `check` says what else is wrong with a file. Raises
    CatalogueError when the file is bad at the start.
    """

    def __init__(
        self, path: Path, environment: Mapping[str, str] = os.environ, check: Check = lambda catalogue: ""
    ) -> None:
        self._check = check
        self._path = path
        self._environment = environment
        self._stamp = self._stamped()
        self.now: Catalogue = load(path, environment, check)
        self.refused = ""
        """Why the file's last change was refused; empty when `now` is what the file says."""
        REFUSED.set(0)

    def _stamped(self) -> tuple[int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_size)

    async def watch(self, every_s: float = 1.0) -> None:
        """Reload whenever the file changes, until cancelled. A bad file is logged and the old snapshot stays.

        Another process reads the file, and the new snapshot is made a few rows at a time: whoever is served meanwhile
        sees the old one, and then the new one.
        """
        while True:
            await asyncio.sleep(every_s)
            stamp = self._stamped()
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                self.now = await reload(self._path, self._environment, self._check)
            except CatalogueError as error:
                self.refused = str(error)
                REFUSED.set(1)
                _log.error("catalogue.refused", why=self.refused)
            else:
                self.refused = ""
                REFUSED.set(0)
                _log.info("catalogue.reloaded", models=len(self.now.models), configured=sorted(self.now.configured))
