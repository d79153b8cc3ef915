"""A reservation that another service made and will settle: here it only pays."""

from __future__ import annotations

from typing import Final, Self

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.common.errors import QuotaExhausted
from services.quota_client import priorities
from services.quota_client._payment import Payment
from services.quota_client._verified_key import VerifiedKey
from services.quota_client.amounts import NOTHING, Amount
from services.quota_client.grants import ActingFor
from services.quota_client.labels import Labels


class TaskReservation(Payment):
    """Quota that the signer of a grant holds. Looks like a `Reservation`; nothing is booked through it."""

    __slots__ = ("amount", "labels", "reservation_id", "verified_key")

    operation: Final = quota_pb2.OPERATION_TASK
    """A reservation in a grant was made for a task, whatever the task is made of."""

    charged: Final = NOTHING
    """The signer of the grant charges."""

    def __init__(self, verified_key: VerifiedKey, acting: ActingFor) -> None:
        self.verified_key = verified_key
        self.labels = Labels("task")
        self.reservation_id = ""
        """None that a backend could settle: the signer of the grant does, whatever becomes of this process."""
        self.amount = Amount(images=acting.images)
        """What is set aside, as far as the grant tells."""

    @property
    def priority(self) -> str:
        """What the work gets where engines are contended: nobody waits at a task as at a call, so at most a normal
        share, lest it come before other accounts' people."""
        return priorities.lower(self.verified_key.priority, priorities.NORMAL)

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Nothing: the holder of the lease reports."""

    def follow(self, so_far: object) -> None:
        """Nothing, likewise."""

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Nothing: the signer of the grant settles, once, when its task succeeds."""

    def release(self) -> None:
        """Nothing: the signer of the grant gives it back."""

    def void(self) -> None:
        """Nothing, likewise."""

    def shrink(self, amount: Amount) -> Self:
        """Itself: it was set aside by another service."""
        return self

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        """Raise QuotaExhausted: the signer of the grant set aside all that there is."""
        raise QuotaExhausted("the reservation does not cover this request")

    def defer(self, *, usage: usage_pb2.Usage, provider: str, model: str, then: object) -> None:
        """Nothing, likewise."""

    def renewed(self) -> Self:
        """Itself: backends are not told of it, so nobody else can have a word."""
        return self
