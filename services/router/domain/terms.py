"""On what terms one request is attempted, and what an attempt comes to."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Protocol

import msgspec

from moa.common.v1 import usage_pb2
from services.catalogue import Model
from services.common.errors import MoaError, UpstreamBroken, error_of
from services.router import metrics
from services.router.domain.breaker import Breakers
from services.router.domain.caller import unheard
from services.router.domain.measures import Watch
from services.router.domain.ports import M, M_co, MessageStream, Reservation

RETRIES: Final = 2
"""So often a target is asked again: as OpenAI's clients do."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What attempts share: who failed of late, and how time passes."""

    breakers: Breakers = field(default_factory=Breakers)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    """Gives a number from 0 to 1."""


class Begun(NamedTuple, Generic[M]):
    """An answer that has begun."""

    model: Model
    stream: MessageStream[M]
    first: M


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms one request is attempted."""

    reservation: Reservation
    """What pays, whoever answers."""
    request_id: str
    """For the log."""
    patience: Patience
    """What attempts share."""
    until: float = math.inf
    """When the caller gives up, by the clock."""
    retries: int = RETRIES
    """How often the same target is asked again."""
    whole: bool = False
    """Whether the answer is paid for as a whole: a target that may have made it is not asked for it twice."""
    heard: Callable[[], None] = unheard
    """Told whenever a target shows, before its first event, that it works."""
    retries_first: bool = True
    """Whether the target that was asked for is asked once more before the others."""
    watch: Watch | None = None
    """Notes the calls of a request for a virtual model, whose targets are each as good as the first."""
    recording: Recording | None = None
    """Notes the calls of a request that is logged."""


class Recording(Protocol):
    """What notes the attempts at a request that is logged."""

    def asking(self, model: Model) -> None:
        """Note that a target is asked."""

    def failed(self, model: Model, error: MoaError) -> None:
        """Note that a target failed that was asked."""

    def booked_by(
        self, reservation: Reservation, then: Callable[[usage_pb2.Usage], None]
    ) -> Callable[[usage_pb2.Usage], None]:
        """Return what hears, besides `then`, what was booked of a call that was left."""


class Ask(Protocol[M_co]):
    """Puts a request to a target."""

    def __call__(self, model: Model, paying: Reservation, /) -> MessageStream[M_co]:
        """Begin a call."""


def counted_for(model: Model, team: str) -> Callable[[usage_pb2.Usage], None]:
    """Return what counts a team's charge that becomes known when its call is over."""

    def known(usage: usage_pb2.Usage) -> None:
        metrics.charged(model, usage, team=team)

    return known


async def first_message(stream: MessageStream[M], heard: Callable[[], None]) -> M:
    """Wait for the first message that has events; a failure before it is raised with its own status.

    `heard` is told of messages without: signs of life.
    """
    try:
        while (first := await stream.read()) is not None and not first.events:
            heard()
    except BaseException:
        stream.cancel()
        raise
    if first is None:
        stream.close()
        raise UpstreamBroken("the answer was empty")
    if first.events[0].HasField("error"):
        stream.close()
        raise error_of(first.events[0].error)
    return first
