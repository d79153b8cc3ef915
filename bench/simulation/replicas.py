"""An auth replica and a router of the simulation: the product's own code over simulated lines and books."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, cast

import grpc

from bench.simulation.database import Database, Ledger, VerifiedKeys
from bench.simulation.network import Callee, Line, Network
from services.auth.domain.quota import Quota
from services.auth.quota_servicer import QuotaServicer
from services.auth.sweeper import Sweeper
from services.common.cancelling import cancel_and_wait
from services.quota_client import Admission

PEPPER: Final = b"a pepper for the simulation"
TOKEN: Final = "a service token for the simulation"  # noqa: S105  # nobody else takes it
FRESH_S: Final = 1.5


class Replica:
    """An auth replica."""

    def __init__(self, database: Database, *, region: int, lease_s: float, block_s: float) -> None:
        self.region = region
        self.up = True
        self._database = database
        self._ledger = Ledger(database, region)
        self._keys = VerifiedKeys(database, region)
        self.quota = Quota(self._keys, self._ledger, pepper=PEPPER, lease_s=lease_s, block_s=block_s)
        nobody = cast(Any, None)
        self._servicer = QuotaServicer(
            self.quota, *(nobody, nobody, nobody, nobody, nobody), fresh_s=FRESH_S, pepper=PEPPER
        )
        self._sweeper = Sweeper(
            cast(Any, self._ledger),
            self.quota.pools,
            {},
            every_s=lease_s / 20,
            rest_s=min(lease_s, block_s) / 2,
            patience_s=lease_s / 2,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        await self._sweeper.__aenter__()
        self._database.recalled.append((self.region, self.quota.recalled))
        self._tasks = [asyncio.create_task(self._keys.listen()), asyncio.create_task(self._keys.reread())]

    async def kill(self) -> None:
        """End, as `kill -9` would."""
        self.up = False
        self._database.recalled.remove((self.region, self.quota.recalled))
        await cancel_and_wait(*self._tasks)
        await self._sweeper.__aexit__(None, None, None)

    async def answer(self, method: str, request: Any) -> Any:
        """Answer a call."""
        return await getattr(self._servicer, method)(request, None)


class Router:
    """A router: its admission, and the requests that run in it.

    Args:
        folder: Where its journal lies.
    """

    def __init__(self, network: Network, replicas: Sequence[Callee], *, region: int, folder: Path) -> None:
        self.region = region
        self._network = network
        self._replicas = replicas
        self._folder = folder
        self._life = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._begin()

    def _begin(self) -> None:
        self._line = Line(network=self._network, region=self.region, replicas=self._replicas)
        line = cast(grpc.aio.Channel, self._line)
        self.admission = Admission(line, service_token=TOKEN, journal=self._journal)

    @property
    def _journal(self) -> Path:
        return self._folder / str(self._life)

    async def start(self) -> None:
        """Begin."""
        await self.admission.start()

    def run(self, request: Coroutine[Any, Any, None]) -> None:
        """Run a request in this process."""
        task = asyncio.create_task(request)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    @property
    def up(self) -> bool:
        """Whether the process is there."""
        return self._line.up

    async def kill(self) -> None:
        """End, as `kill -9` would, and begin anew with the journal that is left."""
        self._line.up = False
        dead, left = self.admission, self._journal
        for task in list(self._requests):
            task.cancel()
        # What the dead process wrote; its own file it has locked as long as this one lives.
        self._life += 1
        shutil.copytree(left, self._journal)
        await dead.stop()
        self._begin()
        await self.admission.start()
