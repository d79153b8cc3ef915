"""The catalogue as it is now: reloaded when its file or its facts change, kept when the change is bad."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from services.catalogue._environment import Environment
from services.catalogue._error import CatalogueError
from services.catalogue._last_good import LastGood
from services.catalogue._listed import Listed
from services.catalogue._load import Check, Kept, load, reload
from services.catalogue._refresh import Refresh
from services.catalogue._snapshot import Catalogue
from services.common import logs
from services.common.beats import until_beat_s

EVERY_S: Final = 5.0
"""How often the files are looked at. Every process looks, also while nobody calls."""

_log = logs.get("catalogue")
REFUSED = Gauge(
    "moa_catalogue_refused", "1 while the catalogue's file has a fault, and what was read before it is kept; else 0."
)
OF_COPY = Gauge(
    "moa_catalogue_of_copy",
    "1 while the catalogue in use is the copy that was kept, for the file had a fault at the start; else 0.",
)


class Watched:
    """Holds the current snapshot. Read `now` once a request, so that one request sees one catalogue.

    `environment` decides which providers are configured; `check` says what else is wrong with a file; `refresh` keeps
    what an operator's address tells of models; `last_good` keeps the file as it was last right: where it is bad at the
    start, that is in use until it is mended. Raises CatalogueError when it is bad and nothing was kept.
    """

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, str] = os.environ,
        check: Check = lambda catalogue: "",
        refresh: Refresh | None = None,
        last_good: LastGood | None = None,
    ) -> None:
        self._check = check
        self._path = path
        self._environment = environment
        self._refresh = refresh
        self._asked = asyncio.Event()
        self._looking = asyncio.Condition()
        self._followed = 0
        self._stamp = self._stamped()
        self._listed: Mapping[str, Listed] = {}
        self._last_good = last_good
        self._of = ""
        """What is said behind why it was refused, while a copy is in use."""
        self._stored = self._stamp[-1]
        """The version of the environment's stored variables that `now` goes by."""
        self.refused = ""
        """Why the file's last change was refused; empty when `now` is what the file says."""
        REFUSED.set(0)
        OF_COPY.set(0)
        try:
            self._read = load(path, environment, check, self._kept)
        except CatalogueError as error:
            self._read = self._of_copy(error)
        else:
            self._keep(self._stamp[0])
        self.now: Catalogue = self._read
        self._told_facts()

    def _of_copy(self, fault: CatalogueError) -> Catalogue:
        """Return what was kept of a file that has a fault. Raises that fault where nothing was that is right."""
        copy = self._last_good.copy() if self._last_good is not None else None
        if copy is None:
            raise fault
        try:
            read = load(self._path, self._environment, self._check, self._kept, text=copy.text)
        except CatalogueError:
            raise fault from None
        OF_COPY.set(1)
        self._of = f" (in use since this start: the copy that was right at {copy.kept})"
        self._refuse(f"{fault}{self._of}")
        return read

    def _keep(self, stamp: tuple[int, int]) -> None:
        """Keep the file that was read, unless it has changed since."""
        if self._last_good is None:
            return
        try:
            text = self._path.read_bytes()
        except OSError:
            return
        if _stamp_of(self._path) == stamp:
            self._last_good.keep(text)

    def _refuse(self, why: str) -> None:
        self.refused = why
        REFUSED.set(1)
        _log.error("catalogue.refused", why=why)

    @property
    def _kept(self) -> Kept | None:
        return (self._refresh.kept, self._refresh.url) if self._refresh is not None else None

    @property
    def facts_refused(self) -> str:
        """Why what the operator's address said last of models is not in use; empty when it is, or there is none."""
        return (self._refresh.refused if self._refresh is not None else "") or self.now.book.fault

    def _stamped(self) -> tuple[tuple[int, int], ...]:
        files = (self._path, self._refresh.kept) if self._refresh is not None else (self._path,)
        stored = self._environment.version if isinstance(self._environment, Environment) else 0
        return (*(_stamp_of(file) for file in files), (stored, 0))

    def look(self) -> None:
        """Have the files and what is stored looked at now, rather than at the next beat."""
        self._asked.set()

    def relist(self, listed: Mapping[str, Listed]) -> None:
        """Join what the file says with what providers list, by provider."""
        self._listed = listed
        asked = self._read.wildcard_providers
        known = {name: each for name, each in listed.items() if name in asked}
        self.now = self._read.with_listed(known) if known else self._read

    async def followed(self, version: int) -> None:
        """Return once the snapshot goes by that version of the environment's stored variables, where `watch` runs."""
        self.look()
        async with self._looking:
            await self._looking.wait_for(lambda: self._followed >= version)

    async def watch(self, every_s: float = EVERY_S) -> None:
        """Reload whenever the file or the facts change, until cancelled. What is bad is logged; the old snapshot stays.

        Another process reads the file, and the new snapshot is made a few rows at a time: whoever is served meanwhile
        sees the old one, and then the new one.
        """
        if self._refresh is None:
            await self._watch(every_s)
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(self._watch(every_s))
            both.create_task(self._refresh.run(self._path))

    async def _watch(self, every_s: float) -> None:
        while True:
            await self._look_again(every_s)
            stamp = self._stamped()
            if stamp != self._stamp:
                self._stamp = stamp
                await self._reload()
            async with self._looking:
                self._followed = stamp[-1][0]
                self._looking.notify_all()

    async def _reload(self) -> None:
        stored = self._stamp[-1]
        try:
            self._read = await reload(self._path, self._environment, self._check, self._kept)
            self.relist(self._listed)
        except CatalogueError as error:
            self._refuse(f"{error}{self._of}")
            if stored != self._stored:
                await self._take_stored(stored)
        else:
            self._stored = stored
            self.refused = self._of = ""
            REFUSED.set(0)
            OF_COPY.set(0)
            _log.info("catalogue.reloaded", models=len(self.now.models), configured=sorted(self.now.configured))
            self._told_facts()
            await asyncio.to_thread(self._keep, self._stamp[0])

    async def _take_stored(self, stored: tuple[int, int]) -> None:
        """Read the copy that was kept with what is stored now: a provider's key does not wait until the file is mended.

        The file itself is bad, so this process reads the copy, and serves nobody while a large one is parsed.
        """
        copy = self._last_good.copy() if self._last_good is not None else None
        if copy is None:
            return
        arguments = self._path, self._environment, self._check, self._kept
        try:
            self._read = await asyncio.to_thread(load, *arguments, text=copy.text)
        except CatalogueError as error:
            _log.warning("catalogue.copy_not_read", why=str(error))
            return
        self._stored = stored
        self.relist(self._listed)

    async def _look_again(self, every_s: float) -> None:
        """Return at the next beat, or as soon as somebody asks for a look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until_beat_s(every_s)):
                await self._asked.wait()
        self._asked.clear()

    def _told_facts(self) -> None:
        if self.now.book.fault:
            _log.error("facts.left_out", why=self.now.book.fault)


def _stamp_of(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)
