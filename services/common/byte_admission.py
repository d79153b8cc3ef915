"""How many bytes of large requests a process has in hand at once: bounded, shared fairly, and waited for in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge

from services.common.errors import RateLimited, Unavailable

BYTES: Final = Gauge(
    "moa_large_requests_bytes", "Bytes of large requests that are served now, or wait for their turn.", ["state"]
)
REFUSED: Final = Counter(
    "moa_large_requests_refused_total", "Large requests that found no room, by whose bound was reached.", ["bound"]
)
_RETRY_S: Final = 5.0
_BUSY: Final = "too many large requests are under way; try again in a moment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How many bytes there may be, and how long a request waits.

    A request that is larger than a bound is served where nothing else is.
    """

    served: int = 160 * 2**20
    """Of requests that are served at once."""
    served_of_account: int = 80 * 2**20
    """Of those, of one account's."""
    waiting: int = 320 * 2**20
    """Of requests that wait for their turn."""
    waiting_of_account: int = 160 * 2**20
    """Of those, of one account's."""
    wait_s: float = 60.0
    """How long one waits."""
    unsent_of_account: int = 256
    """How many requests of an account may wait for room before they are sent."""
    unsent_s: float = 150.0
    """How long one of those waits."""
    booked_s: float = 10.0
    """How long room is kept for a request that is being sent. A slower one takes it as others do, once it is here."""
    hurried_s: float = 1.0
    """How long it is kept while some that it was kept for did not come: others are not to wait for each of them."""
    hurry_s: float = 60.0
    """How long that is so after one did not come."""


@dataclass(slots=True)
class _Waiter:
    size: int
    turn: asyncio.Future[None]
    held: int
    """How much of it lies somewhere meanwhile: all or nothing."""
    served: bool = False


@dataclass(slots=True)
class _Booking:
    account: str
    size: int
    lapse: asyncio.TimerHandle


class _Sums:
    """Bytes, in all and of each account."""

    __slots__ = ("by_account", "total")

    def __init__(self) -> None:
        self.total = 0
        self.by_account: dict[str, int] = {}

    def add(self, account: str, size: int) -> None:
        self.total += size
        left = self.by_account.get(account, 0) + size
        if left:
            self.by_account[account] = left
        else:
            self.by_account.pop(account, None)

    def of(self, account: str) -> int:
        return self.by_account.get(account, 0)


class ByteAdmission:
    """The room that a process has for large requests.

    Accounts that wait have their turns one after another, however many requests each of them has; of one account the
    first to come is served first.

    Args:
        bounds: How much there is.
        counted: Whether metrics count it, as the admission of this process.
        came: Called for each request that comes.
    """

    def __init__(
        self, bounds: Bounds | None = None, *, counted: bool = True, came: Callable[[], None] | None = None
    ) -> None:
        self.bounds = bounds or Bounds()
        self._counted = counted
        self._came = came
        self._served = _Sums()
        self._waiting = _Sums()
        self._queues: dict[str, deque[_Waiter]] = {}
        """By account, in the order of their turns."""
        self._bookings: dict[str, _Booking] = {}
        """By the name of the request."""
        self._hurry_until = 0.0

    @property
    def served_bytes(self) -> int:
        """Bytes of the requests that are served now."""
        return self._served.total

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the requests that wait."""
        return self._waiting.total

    @property
    def unsent(self) -> int:
        """How many requests wait for room before they are sent."""
        return sum(not waiter.held for queue in self._queues.values() for waiter in queue)

    @asynccontextmanager
    async def entered(self, account: str, size: int, name: str = "") -> AsyncIterator[None]:
        """Wait until there is room for a request, and take it until the block is left; what was booked for it, at once.

        Raises RateLimited where the account has more that waits than it may, Unavailable where all have, or where no
        room was found in time.
        """
        booking = self._bookings.get(name)
        if booking is not None and booking.account == account:
            del self._bookings[name]
            booking.lapse.cancel()
            size = booking.size
        else:
            await self._enter(account, size, held=size)
        try:
            yield
        finally:
            self._leave(account, size)

    async def book(self, account: str, size: int, name: str) -> None:
        """Wait until there is room for a request that is not sent yet, and keep it until the request comes, for a time.

        Raises as `entered`, but what waits to be sent takes no room of what waits.
        """
        await self._enter(account, size, held=0)
        if (before := self._bookings.get(name)) is not None:
            before.lapse.cancel()
            self._lapsed(name)
        loop = asyncio.get_running_loop()
        kept_s = self.bounds.hurried_s if loop.time() < self._hurry_until else self.bounds.booked_s
        lapse = loop.call_later(kept_s, self._not_come, name)
        self._bookings[name] = _Booking(account, size, lapse)

    def _not_come(self, name: str) -> None:
        self._hurry_until = asyncio.get_running_loop().time() + self.bounds.hurry_s
        self._lapsed(name)

    def _lapsed(self, name: str) -> None:
        booking = self._bookings.pop(name)
        self._leave(booking.account, booking.size)

    async def _enter(self, account: str, size: int, *, held: int) -> None:
        if self._came is not None:
            self._came()
        if self._queues or not self._fits(account, size):
            await self._wait(account, size, held)
        else:
            self._serve(account, size)

    def _tell(self, state: str, size: int) -> None:
        if self._counted:
            BYTES.labels(state).inc(size)

    def _leave(self, account: str, size: int) -> None:
        self._served.add(account, -size)
        self._tell("served", -size)
        self._let_in()

    def _fits(self, account: str, size: int) -> bool:
        return self._fits_account(account, size) and _within(self._served.total, size, self.bounds.served)

    def _fits_account(self, account: str, size: int) -> bool:
        return _within(self._served.of(account), size, self.bounds.served_of_account)

    def _serve(self, account: str, size: int) -> None:
        self._served.add(account, size)
        self._tell("served", size)

    async def _wait(self, account: str, size: int, held: int) -> None:
        self._check_waiting(account, held)
        waiter = _Waiter(size, asyncio.get_running_loop().create_future(), held)
        self._queues.setdefault(account, deque()).append(waiter)
        self._waiting.add(account, held)
        self._tell("waiting", held)
        self._let_in()  # where those before it wait for room of their own account alone
        try:
            async with asyncio.timeout(self.bounds.wait_s if held else self.bounds.unsent_s):
                await waiter.turn
        except BaseException as error:
            if waiter.served:
                self._leave(account, size)  # the turn came at the same moment
            else:
                self._forget(account, waiter)
                self._let_in()
            if isinstance(error, TimeoutError):
                REFUSED.labels("time").inc()
                raise Unavailable(_BUSY, retry_after_s=_RETRY_S) from None
            raise

    def _check_waiting(self, account: str, held: int) -> None:
        unsent = sum(not waiter.held for waiter in self._queues.get(account, ()))
        enough = not held and unsent >= self.bounds.unsent_of_account
        if enough or not _within(self._waiting.of(account), held, self.bounds.waiting_of_account):
            REFUSED.labels("account").inc()
            message = "this account has too many large requests under way; wait for some of them to end"
            raise RateLimited(message, retry_after_s=_RETRY_S)
        if not _within(self._waiting.total, held, self.bounds.waiting):
            REFUSED.labels("process").inc()
            raise Unavailable(_BUSY, retry_after_s=_RETRY_S)

    def _forget(self, account: str, waiter: _Waiter) -> None:
        queue = self._queues[account]
        queue.remove(waiter)
        if not queue:
            del self._queues[account]
        self._waiting.add(account, -waiter.held)
        self._tell("waiting", -waiter.held)

    def _let_in(self) -> None:
        """Serve those whose turn it is, one after another, as long as there is room for them."""
        while (result := self._next()) is not None:
            account, waiter = result
            self._forget(account, waiter)
            if account in self._queues:
                self._queues[account] = self._queues.pop(account)  # behind the others
            self._serve(account, waiter.size)
            waiter.served = True
            waiter.turn.set_result(None)

    def _next(self) -> tuple[str, _Waiter] | None:
        """Return whose turn it is, if there is room.

        Whoever does not fit for want of the process's room keeps the others waiting: small ones would pass it for ever.
        Whoever has no room of its own account keeps nobody.
        """
        for account, queue in self._queues.items():
            # Those who left are about to take themselves out.
            waiter = next((one for one in queue if not one.turn.done()), None)
            if waiter is None or not self._fits_account(account, waiter.size):
                continue
            return (account, waiter) if self._fits(account, waiter.size) else None
        return None


def _within(taken: int, size: int, bound: int) -> bool:
    """Return whether there is room for more; what is larger than the bound has room where nothing else is."""
    return not taken or taken + size <= bound
