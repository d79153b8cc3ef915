"""Admission: a key is verified, a permission looked up, and a lease cut, in one step."""

from __future__ import annotations

import contextlib
import hmac
import math
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar
from uuid import UUID

from moa.quota.v1 import quota_pb2
from services.auth.domain import keys
from services.auth.domain.accounts import Owner, Short, Standing, VerifiedKey
from services.auth.domain.ledger import Booking, Known, LeaseIds, Return
from services.auth.domain.pool import Lease
from services.auth.domain.pools import BlockStore, Borrowed, Pools
from services.auth.domain.recalls import Recalls
from services.common.clock import now_utc
from services.common.errors import MoaError, NoCredit, PermissionDenied, QuotaExhausted, Unauthenticated, Unavailable
from services.common.isolate import each_isolated, note_failure
from services.quota_client.amounts import GRANTED, Amount, limit_of, limit_shown, shown
from services.quota_client.permissions import permitted, refused

T = TypeVar("T")
R = TypeVar("R")

_NO_KEY: Final = "the API key is not valid; send it whole, or one that is not expired or revoked"


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A verified key, and the lease where one was asked for."""

    who: VerifiedKey
    """As its limits stand after the lease."""
    lease: Lease | None
    pooled: Amount
    """What this replica has borrowed for the key and not leased: as good as free."""


class VerifiedKeyStore(Protocol):
    """Where keys are looked up."""

    async def by_digest(self, digest: bytes) -> VerifiedKey | None: ...  # noqa: D102
    async def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]: ...  # noqa: D102
    def trusted(self, key_ids: Sequence[str]) -> list[VerifiedKey]: ...  # noqa: D102
    def note(self, key_id: str, standings: tuple[Standing, ...]) -> None: ...  # noqa: D102


class LedgerStore(BlockStore, Protocol):
    """Where quota is booked."""

    async def settle(self, bookings: Sequence[Booking]) -> tuple[list[str], list[str], dict[str, Known]]: ...  # noqa: D102
    async def report(self, open_ones: Sequence[Booking]) -> None: ...  # noqa: D102
    async def further_of(self, reservation_ids: Sequence[str]) -> dict[str, list[str]]: ...  # noqa: D102
    async def recall(self, subjects: Collection[str]) -> None: ...  # noqa: D102


class Quota:
    """Admits, refreshes and books.

    Args:
        pepper: What keys are digested with; lease ids are signed with a key made from it.
        lease_s: How long a lease lasts without renewal.
        block_s: How long what this replica borrowed lasts while the database is away.
    """

    def __init__(
        self, verified_keys: VerifiedKeyStore, ledger: LedgerStore, *, pepper: bytes, lease_s: float, block_s: float
    ) -> None:
        self._verified_keys = verified_keys
        self._ledger = ledger
        self._pepper = pepper
        self._lease_ids = LeaseIds(pepper)
        self._lease_s = lease_s
        owner = f"auth-{secrets.token_hex(6)}"
        self.pools = Pools(ledger, self._lease_ids, owner=owner, lease_s=lease_s, block_s=block_s)
        self.recalls = Recalls(ledger.recall)

    async def verify(self, api_key: str) -> VerifiedKey:
        """Return who a key belongs to.

        Raises Unauthenticated when it is unknown, expired or revoked, PermissionDenied where its account is disabled.
        """
        if not api_key or len(api_key) > keys.MAX_KEY_CHARS:
            raise Unauthenticated(_NO_KEY)
        digest = keys.digest(self._pepper, api_key)
        who = await self._verified_keys.by_digest(digest)
        if who is None or not hmac.compare_digest(who.digest, digest):
            raise Unauthenticated(_NO_KEY)
        return _alive(who)

    async def known(self, key_id: str) -> VerifiedKey:
        """Return who a key's id belongs to. Raises Unauthenticated likewise."""
        try:
            found = await self._verified_keys.by_ids([key_id])
        except Unavailable:
            found = self._verified_keys.trusted([key_id])
            if not found:
                raise
        if not found:
            raise Unauthenticated(_NO_KEY)
        return _alive(found[0])

    async def admit(
        self,
        who: VerifiedKey,
        *,
        holder: str,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        least: Amount,
        need: Amount,
        want: Amount,
        lasting: bool = False,
        tags: Collection[str] = (),
        budgets: Collection[str] | None = (),
        alone: bool = False,
    ) -> Admitted:
        """Check the permission and lease quota. Raises PermissionDenied, QuotaExhausted or Unavailable.

        `budgets` are those on which it counts whatever is asked for; None: all that the key has. `alone`: it waits a
        moment for what others have idle before it is refused.
        """
        if not permitted(who.rules, who.scopes, operation, provider, model):
            raise refused(model or provider or "this")
        who = who.asking(provider, model, tags, budgets)
        if not need and not want:
            return Admitted(who=who, lease=None, pooled=self.pools.free(who.key_id))

        async def lent() -> tuple[Lease, Borrowed | None] | Short:
            if lasting:
                return await self._lasting(who, holder=holder, least=least, need=need)
            return await self.pools.cut(who, least=least, need=need, want=want.at_least(need))

        found = await lent()
        if isinstance(found, Short):
            found = await self.recalls.waited(who, found, lent, alone=alone)
        if isinstance(found, Short):
            raise exhausted(who, found)
        lease, borrowed = found
        if borrowed is not None:
            who = who.stood(borrowed.standings)
            self._verified_keys.note(who.key_id, borrowed.standings)
        return Admitted(who=who, lease=lease, pooled=self.pools.free(who.key_id))

    async def _lasting(
        self, who: VerifiedKey, *, holder: str, least: Amount, need: Amount
    ) -> tuple[Lease, Borrowed] | Short:
        found = await self._ledger.borrow(who, holder=holder, least=least, need=need, want=need, ttl_s=self._lease_s)
        if isinstance(found, Short):
            return found
        return Lease(self._lease_ids.make(found.block_id, 0), found.amount, self._lease_s), found

    def recalled(self, subject: str) -> None:
        """Note that what is idle of a subject's quota is wanted, and return what lies so here."""
        self.recalls.heard(subject)
        self.pools.recall(subject)

    async def refreshed(self, key_ids: Sequence[str]) -> tuple[list[VerifiedKey], list[str]]:
        """Return the keys that are still good, and the ids of those that ended; neither when it cannot be told now."""
        if not key_ids:
            return [], []
        try:
            found = await self._verified_keys.by_ids(key_ids)
        except Unavailable:
            trusted = [who for who in self._verified_keys.trusted(key_ids) if not who.ended]
            for who in trusted:
                self.pools.name(who)
            return trusted, []
        good = [who for who in found if not who.ended]
        for who in good:
            self.pools.name(who)
        alive = {who.key_id for who in good}
        return good, [key_id for key_id in key_ids if key_id not in alive]

    async def renew(self, lease_ids: Sequence[str]) -> list[tuple[str, float]]:
        """Renew leases; give those that are alive, with how long they last from now."""
        renewed: list[tuple[str, float]] = []
        lasting: dict[UUID, str] = {}
        for lease_id in lease_ids:
            found = self._lease_ids.read(lease_id)
            if found is None:
                continue
            block_id, number = found
            if number == 0:
                lasting[block_id] = lease_id
            elif (lasts_s := self.pools.renew(block_id, number)) is not None:
                renewed.append((lease_id, lasts_s))
        if lasting:
            alive: set[UUID] = set()

            async def extend(blocks: Sequence[UUID]) -> None:
                alive.update(await self._ledger.extend(blocks, ttl_s=self._lease_s))

            with contextlib.suppress(Unavailable):
                await _noted("renew", list(lasting), extend, str)
            renewed.extend((lease_id, self._lease_s) for block_id, lease_id in lasting.items() if block_id in alive)
        return renewed

    async def report(self, open_ones: Iterable[quota_pb2.OpenReservation]) -> bool:
        """Keep what is known of open reservations; tell whether that could be done."""
        readable = [booking for one in open_ones if (booking := self._lease_ids.booking(one.so_far))]
        if readable:
            try:
                await _noted("report", readable, self._ledger.report, _reservation_id)
            except Unavailable:
                return False
        return True

    async def settle(
        self, settlements: Iterable[quota_pb2.Settlement]
    ) -> tuple[list[str], list[str], dict[str, Known]]:
        """Book settlements. Return the ids that are booked, those that never can be, and what was booked before.

        One that could not be booked now, though the database is there, is in neither: it keeps no other back.
        """
        bookings, refused = [], []
        for settlement in await self._completed(settlements):
            booking = self._lease_ids.booking(settlement)
            if booking is None:
                refused.append(settlement.reservation_id)
            else:
                bookings.append(booking)
        if not bookings:
            return [], refused, {}
        beyond = {booking.block_id for booking in bookings if booking.consumed != booking.charged}
        if beyond:
            await self.pools.release(beyond)
        booked: list[str] = []
        known: dict[str, Known] = {}
        for some, unknown, before in await _noted("settle", bookings, self._ledger.settle, _reservation_id):
            booked += some
            refused += unknown
            known |= before
        return booked, refused, known

    async def give_back(self, returns: Iterable[quota_pb2.LeaseReturn]) -> None:
        """Take unspent pieces of leases back."""
        readable = [
            Return(piece.return_id, found[0], Amount.read(piece.amount), piece.lease_id)
            for piece in returns
            if (found := self._lease_ids.read(piece.lease_id))
        ]
        await _noted("return", readable, self._ledger.give_back, lambda piece: piece.return_id)

    async def _completed(self, settlements: Iterable[quota_pb2.Settlement]) -> list[quota_pb2.Settlement]:
        """Return settlements with the further reservations that their senders did not know of."""
        result = list(settlements)
        alone = [settlement.reservation_id for settlement in result if settlement.first_alone]
        further = await self._ledger.further_of(alone) if alone else {}
        for settlement in result:
            if settlement.first_alone:
                settlement.further[:] = further.get(settlement.reservation_id, ())
        return result


def _alive(who: VerifiedKey) -> VerifiedKey:
    """Return a key that has not ended. Raises PermissionDenied where its account is disabled, else Unauthenticated."""
    if who.disabled:
        raise PermissionDenied("the account of this API key is disabled; ask an administrator to enable it")
    if who.ended:
        raise Unauthenticated(_NO_KEY)
    return who


async def _noted(
    duty: str, items: Sequence[T], work: Callable[[Sequence[T]], Awaitable[R]], name: Callable[[T], str]
) -> list[R]:
    """Work on each item apart from those that fail, which are logged and counted. Raises Unavailable."""
    done, failed = await each_isolated(items, work)
    for item, error in failed:
        note_failure(duty, name(item), error)
    return done


def _reservation_id(booking: Booking) -> str:
    return booking.reservation_id


_WHOSE: Final = {
    Owner.ACCOUNT: "the account",
    Owner.KEY: "the key",
    Owner.MAKER: "the maker of this key",
    Owner.TEAM: "the team",
    Owner.BUDGET: "the budget",
}


def exhausted(who: VerifiedKey, short: Short) -> MoaError:
    """Return the refusal: which limit it is, whose, and the time until it begins anew. Credits never do."""
    if limit_of(short.dimension, short.period) == GRANTED:
        return NoCredit("not enough credits")
    ends = who.ends.get(short.period)
    limit = limit_shown(limit_of(short.dimension, short.period), short.limit)
    whose = f"{_WHOSE[short.owner]} {short.label}".rstrip()
    if short.needed is not None:
        return QuotaExhausted(
            f"{whose}'s limit of {limit} is less than this request may come to, {shown(short.dimension, short.needed)};"
            " ask for less, or ask whoever set it for more"
        )
    if short.back_in_s is not None:
        within_s = math.ceil(short.back_in_s)
        return QuotaExhausted(
            f"{whose}'s limit of {limit} does not cover this request now: the rest is set aside for requests that run;"
            f" what they do not use is free again when they end, or, if their process died, within {within_s} s",
            retry_after_s=within_s,
        )
    when = f"it begins anew at {ends:%Y-%m-%dT%H:%M:%SZ}" if ends else "ask whoever set it for more"
    return QuotaExhausted(
        f"{whose}'s limit of {limit} does not cover this request; {when}",
        retry_after_s=max(1.0, (ends - now_utc()).total_seconds()) if ends else None,
    )
