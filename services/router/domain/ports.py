"""What the answers need of those who pay for them and those who give them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from moa.common.v1 import media_pb2, usage_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Cost
from services.quota_client.amounts import Amount
from services.quota_client.labels import Labels
from services.quota_client.ratelimit import Remaining


class Events(Protocol):
    """A message of an answer. One without events is a sign of life."""

    @property
    def events(self) -> Any:
        """What it tells, in order."""


M = TypeVar("M", bound=Events)

M_co = TypeVar("M_co", covariant=True)


class Linked(NamedTuple):
    """An image of a request that is a link, and the field by which a refusal names it."""

    param: str
    image: media_pb2.ImageInput


class Missing(NamedTuple):
    """What a router needs and cannot reach."""

    names: tuple[str, ...] = ()
    """Of services, and `database` for that of auth."""
    refuses: bool = False
    """Whether requests are refused for it: auth or its database were not there for longer than keys go on without."""


class Payer(Protocol):
    """On whose behalf work is done, and how much of a contended engine it gets: a key, or a reservation."""

    @property
    def account_id(self) -> str:
        """The account."""

    @property
    def priority(self) -> str:
        """`low`, `normal` or `high`."""


class VerifiedKey(Payer, Protocol):
    """A verified key."""

    @property
    def stores_responses(self) -> bool:
        """Whether responses of its account are stored where a request does not say otherwise."""

    def may(self, operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
        """Return whether the key may do this."""

    def asking(self, provider: str, model: str, tags: Collection[str]) -> VerifiedKey:
        """Return the key as it is bound for a request: by those of its budgets on which that counts."""

    def remaining(self) -> Remaining:
        """Tell what is left of its account's day."""

    def free(self, enough: Amount) -> Amount:
        """Return what is left of its limits over all periods; perhaps less than there is, where that is `enough`."""


class LoggedKey(VerifiedKey, Protocol):
    """A verified key, with what the log of requests says of it."""

    @property
    def key_id(self) -> str:
        """Its id."""

    @property
    def team_id(self) -> str:
        """The team of its account; empty when it is in none."""

    @property
    def request_logging(self) -> quota_pb2.RequestLogging.ValueType:
        """What is logged of its requests."""


class Reservation(Payer, Protocol):
    """A reservation of quota; `services.quota_client.Reservation` is one."""

    labels: Labels
    """What its request is called in reports."""

    @property
    def team_id(self) -> str:
        """The team of the account; empty when it is in none."""

    @property
    def reservation_id(self) -> str:
        """Its id."""

    @property
    def amount(self) -> Amount:
        """What is reserved."""

    @property
    def tokens(self) -> int:
        """Tokens reserved."""

    @property
    def operation(self) -> quota_pb2.Operation.ValueType:
        """What it was made for, and so what its key must be permitted."""

    @property
    def verified_key(self) -> VerifiedKey:
        """The key that it was made for."""

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Tell what was consumed so far; charged should this process vanish. Cheap."""

    def follow(self, so_far: Callable[[], tuple[usage_pb2.Usage, str, str] | None]) -> None:
        """Ask whenever auth is told what was consumed so far, with its provider and model; None: nothing yet."""

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        """Set more aside, at least so much, and return how much. Raises MoaError."""

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Book what was consumed. Once; later calls do nothing."""

    def release(self) -> None:
        """Give everything back."""

    def void(self) -> None:
        """Give everything back, and let nobody else's word count: for a call that was left before its end."""

    def shrink(self, amount: Amount) -> Self:
        """Return a reservation of so much, or as much as there is, in the place of this one.

        Before anybody has been told of it.
        """

    def defer(
        self, *, usage: usage_pb2.Usage, provider: str, model: str, then: Callable[[usage_pb2.Usage], None]
    ) -> None:
        """Leave it to whoever answered to say what a call that was left comes to; if nobody does, it is `usage`.

        `then` hears what was booked.
        """

    def renewed(self) -> Self:
        """Return the same quota under another id, and void this one: for another call after one that was left."""


class MessageStream(Protocol[M_co]):
    """Where messages come from: one call to whoever really answers."""

    async def read(self) -> M_co | None:
        """Return the next message, None when there are no more. Raises MoaError."""

    def cancel(self) -> None:
        """Stop the work behind it."""

    def close(self) -> None:
        """Let go of it, once its last event was read."""


class Admission(Protocol):
    """Who verifies keys and lends quota; `services.quota_client.Admission` is one."""

    async def identify(self, key: str) -> VerifiedKey:
        """Verify a key."""

    async def arrive(self, key: str) -> VerifiedKey:
        """Verify a key, and count a request that needs no quota. Raises RateLimited."""

    async def reserve(
        self,
        key: str,
        *,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        need: Amount,
        least: Amount | None = None,
        cost: Cost = ...,
        request_id: str,
        tags: tuple[str, ...] = (),
    ) -> Reservation:
        """Verify a key and lend it quota."""


class KnownKey(VerifiedKey, Protocol):
    """A verified key that can be acted by."""

    @property
    def key_id(self) -> str:
        """Its id."""


class RememberingAdmission(Admission, Protocol):
    """One that remembers keys."""

    async def identify(self, key: str) -> KnownKey:
        """Verify a key."""

    def verified(self, key: str) -> KnownKey | None:
        """Return who a key belongs to; None where auth is to be asked before it is used."""
