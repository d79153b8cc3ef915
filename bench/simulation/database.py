"""PostgreSQL as the replicas see it: transactions over some distance, on so many processors, or none at all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

import simpy

from bench.simulation.books import Books
from bench.simulation.clock import come
from bench.simulation.network import Network
from services.auth.adapters.cached import AWAY_S, REREAD_S, SURE_S
from services.auth.adapters.ledger import Borrowed
from services.auth.adapters.settlements import Booked
from services.auth.domain.accounts import Short, Standing, VerifiedKey
from services.auth.domain.ledger import Booking, Ending, Return
from services.common.errors import Unavailable
from services.quota_client.amounts import Amount

T = TypeVar("T")

WAIT_S: Final = 2.0
"""How long a transaction is waited for that nobody answers."""
_BEAT_S: Final = 0.1
_BUSY_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a transaction takes of a processor of the database's."""

    transaction_s: float = 0.0008
    row_s: float = 0.00003
    wait_s: float = 0.0
    """How long it waits beside that, for a busy machine's processors."""


class Database:
    """The one database, in one region.

    Args:
        processors: How many transactions it works on at once.
    """

    def __init__(
        self, env: simpy.Environment, network: Network, books: Books, *, region: int, processors: int, cost: Cost
    ) -> None:
        self.env = env
        self.network = network
        self.books = books
        self.region = region
        self.cost = cost
        self.up = True
        self.transactions: Counter[str] = Counter()
        self.busy_s = 0.0
        self.recalled: list[tuple[int, Callable[[str], None]]] = []
        """Who hears whose idle quota is wanted, with the regions in which they are."""
        self._processors = simpy.Resource(env, capacity=processors)

    async def transaction(
        self, name: str, region: int, do: Callable[[], T], *, round_trips: int = 1, rows: int = 1
    ) -> T:
        """Do something in one transaction that a replica of a region asks for. Raises Unavailable."""
        if not self.up or not self.network.reaches(region, self.region):
            await asyncio.sleep(WAIT_S)
            raise Unavailable("the database cannot be reached")
        far_s = 2 * round_trips * self.network.map.far_s(region, self.region)
        await asyncio.sleep(far_s / 2 + self.cost.wait_s)
        took_s = self.cost.transaction_s + self.cost.row_s * rows
        with self._processors.request() as turn:
            await come(turn)
            await come(self.env.timeout(took_s))
        self.transactions[name] += 1
        self.busy_s += took_s
        result = do()
        await asyncio.sleep(far_s / 2)
        return result


class Ledger:
    """The ledger as one replica reaches it. As `services.auth.adapters.ledger.Ledger`."""

    def __init__(self, database: Database, region: int) -> None:
        self._database = database
        self._books = database.books
        self._region = region

    async def borrow(
        self, who: VerifiedKey, *, holder: str, least: Amount, need: Amount, want: Amount, ttl_s: float
    ) -> Borrowed | Short:
        """Move quota of the day into a new block."""
        done = await self._done(
            "borrow", lambda: self._books.borrow(who, least=least, need=need, want=want, ttl_s=ttl_s), 3
        )
        if isinstance(done, Short):
            # Who holds what is read in a transaction of its own.
            await self._done("held", lambda: None)
        return done

    async def settle(self, bookings: Sequence[Booking]) -> Booked:
        """Charge reservations to their blocks."""
        return await self._done("settle", lambda: self._books.settle(bookings), 8, len(bookings))

    async def give_back(self, returns: Sequence[Return]) -> None:
        """Return unspent pieces of blocks."""
        await self._done("return", lambda: self._books.give_back(returns), 7, len(returns))

    async def end(self, endings: Sequence[Ending]) -> None:
        """Take leases back."""
        await self._done("end", lambda: self._books.end(endings), 8, len(endings))

    async def extend(self, block_ids: Sequence[UUID], *, ttl_s: float) -> set[UUID]:
        """Let blocks last."""
        return await self._done("extend", lambda: self._books.extend(block_ids, ttl_s=ttl_s), 2, len(block_ids))

    async def report(self, open_ones: Sequence[Booking]) -> None:
        """Keep what is known of open reservations."""
        await self._done("report", lambda: self._books.report(open_ones), 1, len(open_ones))

    async def further_of(self, reservation_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return further reservations, which nobody has here."""
        return {}

    async def recall(self, subjects: Collection[str]) -> None:
        """Tell every replica whose idle quota is wanted."""

        def tell() -> None:
            network = self._database.network
            for region, hear in self._database.recalled:
                if network.reaches(region, self._database.region):
                    for subject in subjects:
                        hear(subject)

        await self._done("recall", tell)

    async def owes(self) -> bool:
        """Return whether any block or reservation is open."""
        return await self._done("owes", self._books.owes)

    async def overdue(self, *, limit: int, but: Sequence[UUID] = ()) -> list[UUID]:
        """Return blocks whose time is over."""
        return await self._done("overdue", lambda: self._books.overdue(limit=limit))

    async def expire(self, block_ids: Sequence[UUID]) -> int:
        """End blocks whose time is over."""
        return await self._done("expire", lambda: self._books.expire(block_ids), 6, len(block_ids))

    async def stale(self, *, limit: int, but: Sequence[str] = ()) -> list[str]:
        """Return reservations that outlived their leases."""
        return await self._done("stale", lambda: self._books.stale(limit=limit))

    async def lose(self, reservation_ids: Sequence[str]) -> int:
        """Charge these as last reported."""
        return await self._done("lose", lambda: self._books.lose(reservation_ids), 6, len(reservation_ids))

    async def _done(self, name: str, do: Callable[[], T], round_trips: int = 1, rows: int = 1) -> T:
        return await self._database.transaction(name, self._region, do, round_trips=round_trips, rows=rows)


class VerifiedKeys:
    """Keys as one replica has them in memory. As `services.auth.adapters.cached`, without changes of keys."""

    def __init__(self, database: Database, region: int) -> None:
        self._database = database
        self._region = region
        self._known: dict[str, VerifiedKey] = {}
        self._id_of: dict[bytes, str] = {}
        self._sure_at = float("-inf")
        self._used_at = float("-inf")

    async def by_digest(self, digest: bytes) -> VerifiedKey | None:
        """Find a key."""
        known = self._known.get(self._id_of.get(digest, ""))
        if known is not None and self._sure(SURE_S):
            return known
        try:
            found = await self._read("key", lambda: self._database.books.by_digest(digest))
        except Unavailable:
            if known is not None and self._sure(AWAY_S):
                return known
            raise
        if found is None:
            return None
        self._known[found.key_id], self._id_of[digest] = found, found.key_id
        return found

    async def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        """Find keys."""
        is_sure = self._sure(SURE_S)
        missing = [key_id for key_id in key_ids if not is_sure or key_id not in self._known]
        if missing:
            for found in await self._read("keys", lambda: self._database.books.by_ids(missing)):
                self._known.setdefault(found.key_id, found)
        return [self._known[key_id] for key_id in key_ids if key_id in self._known]

    def trusted(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        """Return those that may be trusted while the database is away."""
        if not self._sure(AWAY_S):
            return []
        return [self._known[key_id] for key_id in key_ids if key_id in self._known]

    def note(self, key_id: str, standings: tuple[Standing, ...]) -> None:
        """Take over how a key's day stands."""
        if key_id in self._known:
            self._known[key_id] = self._known[key_id].stood(standings)

    async def listen(self) -> None:
        """Hear of changes while keys are used."""
        while True:
            if time.monotonic() - self._used_at < _BUSY_S:
                try:
                    asked_at = time.monotonic()
                    await self._read("beat", lambda: None)
                    self._sure_at = asked_at
                except Unavailable:
                    pass
            await asyncio.sleep(_BEAT_S)

    async def reread(self) -> None:
        """Keep what is left of keys' days up to date."""
        while True:
            await asyncio.sleep(REREAD_S)
            if self._known and time.monotonic() - self._used_at < 2 * REREAD_S:
                try:
                    found = await self._read("keys", lambda: self._database.books.by_ids(list(self._known)))
                except Unavailable:
                    continue
                for one in found:
                    if self._known[one.key_id] != one:
                        self._known[one.key_id] = one

    def _sure(self, within_s: float) -> bool:
        self._used_at = time.monotonic()
        return self._used_at - self._sure_at <= within_s

    async def _read(self, name: str, do: Callable[[], T]) -> T:
        return await self._database.transaction(name, self._region, do)
