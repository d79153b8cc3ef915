"""What pays for a request that is made again should this process vanish: nothing is booked for it but its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client import priorities
from services.quota_client.amounts import Amount
from services.router.domain.hedging import Unbooked


class Durable(Unbooked):
    """A reservation of which auth and whoever answers hear nothing before it is settled.

    Else what a vanished process had asked for would be booked, and what is made again, too.
    """

    @property
    def priority(self) -> str:
        """What the work gets where engines are contended: nobody waits at it as at a call."""
        return priorities.lower(self._paying.priority, priorities.NORMAL)

    def follow(self, so_far: object) -> None:
        """Nothing: what was consumed so far is told to nobody."""

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Nothing, likewise."""

    def defer(
        self, *, usage: usage_pb2.Usage, provider: str, model: str, then: Callable[[usage_pb2.Usage], None]
    ) -> None:
        """Settle by what is known: whoever answered has no word, since it was told of no reservation."""
        self._paying.settle(usage=usage, provider=provider, model=model)
        then(usage)

    def renewed(self) -> Durable:
        """Return the same quota under another id, likewise."""
        return Durable(self._paying.renewed())

    def shrink(self, amount: Amount) -> Durable:
        """Return a reservation of so much, likewise."""
        return Durable(self._paying.shrink(amount))

    def settlement(self, usage: usage_pb2.Usage, provider: str, model: str) -> quota_pb2.Settlement:
        """Return the settlement that this usage makes; it is booked once, whoever sends it."""
        paying: Any = self._paying
        made: quota_pb2.Settlement = paying.settlement(usage, provider, model)
        return made
