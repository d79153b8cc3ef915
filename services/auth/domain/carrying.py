"""Credits that task services of the release before counted by themselves, taken over into the ledger.

Each task has a block of its own, whose id follows from the task's: whatever is told twice is booked once. To be removed
when no database of that release is brought up to date any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import UUID, uuid5

from moa.quota.v1 import quota_pb2, quota_service_pb2
from services.auth.domain.ledger import Booking, LeaseIds, Return
from services.common.isolate import each_isolated, note_failure
from services.quota_client.amounts import Amount, ReservationId

_TASKS: Final = UUID("8d1f5b8e-9f0e-4f6a-9a39-0b0a3c1b6f17")
_RELEASE: Final = quota_service_pb2.CREDIT_STEP_RELEASE
_CHARGE: Final = quota_service_pb2.CREDIT_STEP_CHARGE
_OPEN: Final = timedelta(days=2)
"""Longer than any task of that release may take: whoever ends it ends its block."""
_CHARGED: Final = timedelta(minutes=1)
"""Long enough to be charged."""


@dataclass(frozen=True, slots=True)
class CarriedBlock:
    """A task's credits, set aside."""

    id: UUID
    account_id: str
    key_id: str
    amount: Amount
    at: datetime
    lasts: timedelta
    """Until it ends by itself."""


class CarriedStore(Protocol):
    """Where such blocks are made."""

    async def make(self, blocks: Sequence[CarriedBlock]) -> None: ...  # noqa: D102


class Books(Protocol):
    """Where blocks are settled and returned."""

    async def settle(self, bookings: Sequence[Booking]) -> object: ...  # noqa: D102
    async def give_back(self, returns: Sequence[Return]) -> None: ...  # noqa: D102


class CarriedCredits:
    """Takes entries over.

    Args:
        store: Where blocks are made.
        books: Where they are settled and returned.
        lease_ids: Names what was reserved of them.
    """

    def __init__(self, store: CarriedStore, books: Books, lease_ids: LeaseIds) -> None:
        self._store = store
        self._books = books
        self._lease_ids = lease_ids

    async def carry(self, entries: Sequence[quota_service_pb2.CreditEntry]) -> list[int]:
        """Book what became of tasks' credits; return the entries that are in the ledger. Raises Unavailable.

        A task whose credits cannot be booked now, though the database is there, keeps no other back.
        """
        of_task: dict[str, list[quota_service_pb2.CreditEntry]] = defaultdict(list)
        for entry in sorted(entries, key=lambda entry: entry.entry_id):
            of_task[entry.task_id].append(entry)
        done, failed = await each_isolated([of[-1] for of in of_task.values()], self._book)
        for entry, error in failed:
            note_failure("carry", entry.task_id, error)
        return [entry.entry_id for some in done for last in some for entry in of_task[last.task_id]]

    async def _book(self, entries: Sequence[quota_service_pb2.CreditEntry]) -> Sequence[quota_service_pb2.CreditEntry]:
        """Book the last entries of tasks. What is free again and was never set aside here is nothing to book."""
        await self._store.make([_block(entry) for entry in entries if entry.step != _RELEASE])
        if charges := [self._booking(entry) for entry in entries if entry.step == _CHARGE]:
            await self._books.settle(charges)
        if returns := [_return(entry) for entry in entries if entry.step == _RELEASE]:
            await self._books.give_back(returns)
        return entries

    def _booking(self, entry: quota_service_pb2.CreditEntry) -> Booking:
        amount = _amount(entry)
        reservation = ReservationId(self._lease_ids.make(_block_id(entry), 0), "1", amount)
        settlement = quota_pb2.Settlement(
            reservation_id=str(reservation),
            charged=amount.message(),
            operation=quota_pb2.OPERATION_TASK,
            request_id=entry.task_id,
            ended_at=entry.at,
        )
        return Booking(str(reservation), reservation.lease_id, _block_id(entry), amount, settlement)


def _block_id(entry: quota_service_pb2.CreditEntry) -> UUID:
    return uuid5(_TASKS, entry.task_id)


def _amount(entry: quota_service_pb2.CreditEntry) -> Amount:
    return Amount(micro_credits=entry.micro_credits)


def _block(entry: quota_service_pb2.CreditEntry) -> CarriedBlock:
    # Of a key that nobody knows any more, what was used is the account's alone.
    key_id = entry.key_id or entry.account_id
    at = entry.at.ToDatetime(tzinfo=UTC)
    lasts = _CHARGED if entry.step == _CHARGE else _OPEN
    return CarriedBlock(_block_id(entry), entry.account_id, key_id, _amount(entry), at, lasts)


def _return(entry: quota_service_pb2.CreditEntry) -> Return:
    return Return(f"credits:{entry.task_id}", _block_id(entry), _amount(entry))
