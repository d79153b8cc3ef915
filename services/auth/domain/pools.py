"""Leases from memory: blocks of quota are borrowed from the ledger ahead of need, and cut into leases for routers.

What the ledger knows of is the block; a lease cut from it lives in this process only. Whatever happens, quota is not
spent twice: a lease never outlives its block, a block is kept alive by its owner alone, and one whose owner vanished
goes back to its day when its time is over. A lease that its holder stops renewing is taken back by the owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol, TypeVar
from uuid import UUID, uuid4

from services.auth.domain.accounts import Short, Standing, VerifiedKey
from services.auth.domain.ledger import Ending, LeaseIds, Return
from services.auth.domain.pool import IDLE_S, Block, Cut, Lease, Pool
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.errors import MoaError, Unavailable
from services.common.isolate import Isolation, each_isolated, note_failure
from services.quota_client.amounts import NOTHING, Amount

_log = logs.get("pools")
T = TypeVar("T")

_BLOCKS_A_CALL: Final = 500


class Borrowed(Protocol):
    """A new block and how its day stands."""

    @property
    def block_id(self) -> UUID: ...  # noqa: D102
    @property
    def amount(self) -> Amount: ...  # noqa: D102
    @property
    def standings(self) -> tuple[Standing, ...]: ...  # noqa: D102


class BlockStore(Protocol):
    """Where blocks are borrowed and returned."""

    async def borrow(  # noqa: D102
        self, who: VerifiedKey, *, holder: str, least: Amount, need: Amount, want: Amount, ttl_s: float
    ) -> Borrowed | Short: ...
    async def give_back(self, returns: Sequence[Return]) -> None: ...  # noqa: D102
    async def extend(self, block_ids: Sequence[UUID], *, ttl_s: float) -> set[UUID]: ...  # noqa: D102
    async def end(self, endings: Sequence[Ending]) -> None: ...  # noqa: D102


class Pools:
    """This replica's blocks, by key.

    Args:
        owner: This replica's name, unique.
        lease_s: How long a lease lasts without renewal.
        block_s: How long a block lasts without renewal: as long as the database may be away.
    """

    def __init__(
        self,
        store: BlockStore,
        lease_ids: LeaseIds,
        *,
        owner: str,
        lease_s: float,
        block_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lease_ids = lease_ids
        self._owner = owner
        self.lease_s = lease_s
        self.block_s = block_s
        # Long enough for running reservations to have been reported.
        self._grace_s = max(2.5, lease_s / 4)
        self._clock = clock
        self._pools: dict[str, dict[tuple[str, ...], Pool]] = {}
        """By key, and by the budgets that what is lent of them counts on."""
        self._owned: dict[UUID, Block] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._extending: Isolation[Block] = Isolation("extend", lambda block: str(block.id), clock=clock)
        self._taking_back: Isolation[tuple[Block, int, Cut]] = Isolation(
            "end", lambda lease: lease[2].lease_id, clock=clock
        )

    def free(self, key_id: str) -> Amount:
        """Return what is borrowed for a key and not leased."""
        pools = self._pools.get(key_id)
        return sum((pool.free for pool in pools.values()), NOTHING) if pools else NOTHING

    async def cut(
        self, who: VerifiedKey, *, least: Amount, need: Amount, want: Amount
    ) -> tuple[Lease, Borrowed | None] | Short:
        """Lease from memory, or from a new block; the limit that is short when not even `least` can be had.

        Raises Unavailable when memory does not suffice and the database is away.
        """
        now = self._clock()
        pool = self._pools.setdefault(who.key_id, {}).setdefault(who.lane, Pool())
        pool.used_at = now
        if pool.limits == who.limits:
            lease = self._from_memory(pool, who, need, want, now)
            if lease is not None:
                self._fill_ahead(pool, who, now)
                return lease, None
        async with pool.lock:
            if pool.limits != who.limits:
                # What the limits of before left must not be lent under new ones.
                await self._return_free(pool.blocks)
                self._trim(pool)
                pool.limits = who.limits
                pool.bound_by = frozenset((who.account_id, who.team_id, *who.lane))
            lease = self._from_memory(pool, who, need, want, self._clock())
            if lease is not None:
                return lease, None
            if self._is_scattered(pool, who, need, want):
                # Else what no request can have would count as held, and each would borrow its own need alone.
                await self._return_free(pool.blocks)
                self._trim(pool)
            borrowed = await self._borrowed(pool, who, least=need, need=need, want=want)
            if isinstance(borrowed, Short):
                # What lies about in pieces may be enough in one.
                of_key = self._pools[who.key_id].values()
                pieces = [block for one in of_key for block in one.blocks if block.free]
                await self._return_free(pieces)
                self._trim(pool)
                if pieces or least != need:
                    borrowed = await self._borrowed(pool, who, least=least, need=need, want=want)
            if isinstance(borrowed, Short):
                return borrowed
            lease = self._from_memory(pool, who, need.at_most(borrowed.amount), want, self._clock())
            if lease is None:
                # A block of this moment whose time is over: the process stood still.
                raise Unavailable("the quota that was set aside has expired; try again", retry_after_s=1)
            return lease, borrowed

    async def release(self, block_ids: Collection[UUID]) -> None:
        """Return what lies free in the pools that these blocks are of: more is owed than was set aside of them."""
        await self._return_of([pool for pool in self._all() if any(block.id in block_ids for block in pool.blocks)])

    def recall(self, subject: str) -> None:
        """Return what lies free of a subject's quota, in the background: somebody is refused for its sake."""
        pools = [pool for pool in self._all() if subject in pool.bound_by and pool.free]
        if pools:
            task = asyncio.create_task(self._recalled(pools))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _recalled(self, pools: Iterable[Pool]) -> None:
        with contextlib.suppress(Unavailable):
            await self._return_of(pools)

    async def _return_of(self, pools: Iterable[Pool]) -> None:
        for pool in pools:
            async with pool.lock:
                await self._return_free(pool.blocks)

    def name(self, who: VerifiedKey) -> None:
        """Note that a router uses a key: what is held ahead for it is there for when the database is away."""
        pools = self._pools.get(who.key_id)
        if pools:
            now = self._clock()
            for pool in pools.values():
                pool.named, pool.named_at = who, now

    def renew(self, block_id: UUID, number: int) -> float | None:
        """Return for how long from now a lease of this replica lives on; None when it is not (or no longer) there."""
        block = self._owned.get(block_id)
        cut = block.cuts.get(number) if block else None
        now = self._clock()
        if block is None or cut is None or now > cut.alive_until + self._grace_s:
            return None
        lasts_s = min(self.lease_s, block.expires - now)
        cut.alive_until = max(cut.alive_until, now + lasts_s)
        return lasts_s

    @property
    def in_use(self) -> bool:
        """Whether this replica owns any block."""
        return bool(self._owned)

    async def tend(self, *, patient: bool = False) -> None:
        """Keep blocks alive, return what nobody uses, and take dead leases back unless `patient`.

        Raises Unavailable.
        """
        now = self._clock()
        await self._keep_alive(now)
        if not patient:
            await self._end_dead(now)
        idle: list[Block] = []
        for pools in self._pools.values():
            for lane, pool in pools.items():
                if now - pool.used_at > IDLE_S and pool.filling is None:
                    idle += pool.unneeded(lane, now)
        await self._return_free(idle)
        self._forget()

    async def close(self) -> None:
        """Return everything that is not leased."""
        await cancel_and_wait(*self._tasks)
        try:
            await self._return_free(list(self._owned.values()))
        except Unavailable:
            _log.warning("blocks.abandoned", count=len(self._owned))

    def _from_memory(self, pool: Pool, who: VerifiedKey, need: Amount, want: Amount, now: float) -> Lease | None:
        """Cut a lease of a block of this pool; None: none has what is needed."""
        found = pool.best(who.day, need, want, now + self.lease_s / 4)
        if found is None:
            return None
        best, amount = found
        lasts_s = min(self.lease_s, best.expires - now)
        best.free -= amount
        best.number += 1
        cut = Cut(self._lease_ids.make(best.id, best.number), amount, now + lasts_s)
        best.cuts[best.number] = cut
        return Lease(cut.lease_id, amount, lasts_s)

    def _is_scattered(self, pool: Pool, who: VerifiedKey, need: Amount, want: Amount) -> bool:
        """Return whether what lies free in blocks that are too small for a need leaves no room for what is wanted.

        A block may have tokens for many requests and no request, or requests and no tokens.
        """
        goal = pool.goal(who, pool.grown_demand(want, self._clock(), self.block_s / 2))
        return not (goal - pool.free).at_least(NOTHING).covers((want - need).at_least(NOTHING).at_most(goal))

    async def _borrowed(
        self, pool: Pool, who: VerifiedKey, *, least: Amount, need: Amount, want: Amount
    ) -> Borrowed | Short:
        asked_at = self._clock()
        demand = pool.grown_demand(want, asked_at, self.block_s / 2)
        spare = (pool.goal(who, demand) - pool.free).at_least(NOTHING)
        borrowed = await self._store.borrow(
            who, holder=self._owner, least=least, need=need, want=need + spare, ttl_s=self.block_s
        )
        if not isinstance(borrowed, Short):
            # Only now: what is asked for in vain, as while the database is away, raises no demand.
            pool.demand, pool.filled_at = demand, asked_at
            block = Block(borrowed.block_id, who.day, borrowed.amount, asked_at + self.block_s)
            pool.blocks.append(block)
            self._owned[block.id] = block
        return borrowed

    def _fill_ahead(self, pool: Pool, who: VerifiedKey, now: float) -> None:
        """Borrow more in the background before memory runs dry, so that callers wait for no database."""
        free, goal = pool.free, pool.goal(who, pool.demand)
        if not (free * 2).covers(goal) and pool.filling is None and now >= pool.poor_until:
            pool.filling = asyncio.create_task(self._fill(pool, who))
            self._tasks.add(pool.filling)
            pool.filling.add_done_callback(self._tasks.discard)

    async def _fill(self, pool: Pool, who: VerifiedKey) -> None:
        poor = True
        try:
            async with pool.lock:
                # Else what the limits of before leave would be lent under those that came meanwhile.
                poor = pool.limits != who.limits or isinstance(
                    await self._borrowed(pool, who, least=NOTHING, need=NOTHING, want=NOTHING), Short
                )
        except MoaError:
            pass
        finally:
            pool.filling = None
        if poor:
            pool.poor_until = self._clock() + 1.0

    async def _keep_alive(self, now: float) -> None:
        due = [
            block
            for block in self._owned.values()
            if (block.free or block.cuts) and block.expires - now < self.block_s * 5 / 6
        ]

        async def extend(blocks: Sequence[Block]) -> None:
            alive = await self._store.extend([block.id for block in blocks], ttl_s=self.block_s)
            for block in blocks:
                if block.id in alive:
                    block.expires = now + self.block_s
                else:
                    # Its time was over before this replica came to it: the ledger has taken it back.
                    self._drop(block)

        for chunk in _chunks(due):
            await self._extending.do(chunk, extend)

    async def _end_dead(self, now: float) -> None:
        dead = [
            (block, number, cut)
            for block in self._owned.values()
            for number, cut in block.cuts.items()
            if now > cut.alive_until + self._grace_s
        ]

        async def end(leases: Sequence[tuple[Block, int, Cut]]) -> None:
            # Not renewable from here on, whatever becomes of the call.
            for block, number, _ in leases:
                block.cuts.pop(number, None)
            try:
                await self._store.end([Ending(cut.lease_id, block.id, cut.amount) for block, _, cut in leases])
            except BaseException:
                for block, number, cut in leases:
                    block.cuts[number] = cut
                raise

        for chunk in _chunks(dead):
            await self._taking_back.do(chunk, end)

    async def _return_free(self, blocks: Iterable[Block]) -> None:
        for chunk in _chunks([block for block in blocks if block.free]):
            returns = [Return(uuid4().hex, block.id, block.free) for block in chunk]
            for block in chunk:
                block.free = NOTHING
            # What an unclear outcome loses comes back when the block ends: never twice.
            _, failed = await each_isolated(returns, self._store.give_back)
            for piece, error in failed:
                note_failure("return", str(piece.block_id), error)

    def _trim(self, pool: Pool) -> None:
        """Forget a pool's blocks of which nothing is left."""
        for block in pool.blocks:
            if not block.free and not block.cuts:
                self._drop(block)
        pool.blocks = [block for block in pool.blocks if block.id in self._owned]

    def _all(self) -> Iterable[Pool]:
        return (pool for pools in self._pools.values() for pool in pools.values())

    def _forget(self) -> None:
        """Forget of all pools the blocks of which nothing is left, and the pools that nobody uses."""
        for key_id, pools in list(self._pools.items()):
            for lane, pool in list(pools.items()):
                self._trim(pool)
                idle = not pool.blocks and pool.filling is None and not pool.lock.locked()
                if idle and self._clock() - pool.used_at > 60:
                    del pools[lane]
            if not pools:
                del self._pools[key_id]

    def _drop(self, block: Block) -> None:
        block.free = NOTHING
        self._owned.pop(block.id, None)


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(items), _BLOCKS_A_CALL):
        yield items[start : start + _BLOCKS_A_CALL]
