"""Keep what an operator's address tells of models: asked again and again, and never half."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import random
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import Gauge

from services.catalogue._compact import REFUSED, helper_environment, run_apart
from services.catalogue._kept import NAME
from services.common import logs
from services.common.settings import FactsSettings

_log = logs.get("facts")
FACTS_REFUSED = Gauge(
    "moa_facts_refused", "1 while what the operator's address says of models cannot be had or is wrong; else 0."
)
FACTS_CHECKED = Gauge("moa_facts_checked_timestamp_seconds", "When the operator's address was last found right.")

SAME: Final = 4
"""The exit status that says that the address has what is kept."""
WITHIN_S: Final = 120.0
"""How long fetching and checking may take."""
_NETWORK: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What whoever fetches is told beside: also in small letters."""


class Refresh:
    """Asks an address for facts every so often, and keeps them in a folder once they were found right.

    Args:
        url: The address.
        every_s: How often it is asked.
        folder: Where they are kept, for the next start too; None: a folder of this process, which ends with it.
        jitter: Returns a number from 0 to 1, by which the asking of many processes is spread.
    """

    def __init__(
        self, url: str, *, every_s: float, folder: Path | None = None, jitter: Callable[[], float] = random
    ) -> None:
        self.url = url
        self._every_s = every_s
        self._own = tempfile.TemporaryDirectory(prefix="moa-facts-") if folder is None else None
        self._jitter = jitter
        self.kept = (Path(self._own.name) if self._own is not None else Path(folder or "")) / NAME
        self.refused = ""
        """Why the last answer was refused; empty when it was right."""
        self.asked = 0
        """How often the address was asked."""
        self.kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        FACTS_REFUSED.set(0)

    async def run(self, catalogue: Path) -> None:
        """Ask again and again, until cancelled; what is right is kept, and whoever watches the kept file reads it."""
        while True:
            await self.ask(catalogue)
            await asyncio.sleep(self._every_s * (0.9 + 0.2 * self._jitter()))

    async def ask(self, catalogue: Path) -> None:
        """Ask once. Another process fetches and checks, so that neither costs those who are served."""
        command = [sys.executable, "-m", "services.catalogue.fetching", str(catalogue), str(self.kept)]
        network = {name: os.environ[name] for name in (*_NETWORK, *map(str.lower, _NETWORK)) if name in os.environ}
        environment = helper_environment() | network | {"MOA_FACTS_URL": self.url}
        self.asked += 1
        try:
            status, out = await run_apart(command, environment, WITHIN_S)
        except TimeoutError:
            self._refuse(f"fetching took longer than {WITHIN_S:g} s")
            return
        if status == REFUSED:
            self._refuse(out.decode(errors="replace"))
        elif status not in (0, SAME):
            self._refuse(f"the process that fetches ended with status {status}")
        else:
            self.refused = ""
            FACTS_REFUSED.set(0)
            FACTS_CHECKED.set(time.time())
            if status == 0:
                _log.info("facts.refreshed", host=urlsplit(self.url).hostname)

    def _refuse(self, why: str) -> None:
        if why != self.refused:
            _log.error("facts.refused", why=why)
        self.refused = why
        FACTS_REFUSED.set(1)


def refresh_of(config: FactsSettings) -> Refresh | None:
    """Return what keeps a process's facts new; None where no address is set."""
    if not config.facts_url:
        return None
    return Refresh(config.facts_url, every_s=config.facts_every_s, folder=config.facts_dir)
