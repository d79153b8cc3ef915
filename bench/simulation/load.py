"""Requests that come to routers, and what became of them: the same in simulated and in real time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.common.errors import MoaError, QuotaExhausted
from services.quota_client import Admission
from services.quota_client.amounts import Amount

_TEXT: Final = quota_pb2.OPERATION_TEXT


class Request(NamedTuple):
    """One request: when it comes to which router, by which key, what it needs and uses, how long it takes."""

    at_s: float
    router: int
    key: int
    need: int
    used: int
    takes_s: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """Who asks how often, and for how much."""

    routers: int
    keys: int
    a_second: float
    """Requests of all routers together, on average: a Poisson process."""
    lasts_s: float
    need: tuple[int, int] = (400, 1_600)
    """Tokens that are set aside of a request, evenly spread."""
    used: tuple[float, float] = (0.1, 0.9)
    """What part of them it uses."""
    takes_s: float = 2.0
    """How long it takes on average, as an exponential has it, up to five times that."""

    def requests(self, seed: int) -> list[Request]:
        """Return them, in order of time."""
        dice = random.Random(seed)  # noqa: S311  # no secret
        result: list[Request] = []
        at_s = dice.expovariate(self.a_second)
        while at_s < self.lasts_s:
            need = dice.randint(*self.need)
            # Few keys ask most.
            key = min(int(dice.paretovariate(1.2)) - 1, self.keys - 1) if self.keys > 1 else 0
            takes_s = min(dice.expovariate(1 / self.takes_s), self.takes_s * 5)
            used = int(need * dice.uniform(*self.used))
            result.append(Request(at_s, dice.randrange(self.routers), key, need, used, takes_s))
            at_s += dice.expovariate(self.a_second)
        return result


@dataclass
class Outcome:
    """What became of requests so far."""

    answered: int = 0
    exhausted: int = 0
    """Refused for want of quota."""
    unavailable: int = 0
    in_vain: int = 0
    """Of those refused for want of quota, how many the account had enough for: others only held it."""
    cut: int = 0
    """Whose router was killed."""
    used: int = 0
    """Tokens that answered requests used."""
    aside: int = 0
    """Tokens that are set aside for requests that run."""
    waits_s: list[float] = field(default_factory=list, repr=False)
    """How long each request that was admitted waited for that."""

    @property
    def asked(self) -> int:
        """How many there were."""
        return self.answered + self.exhausted + self.unavailable + self.cut

    def wait_s(self, part: float) -> float:
        """Return how long so large a part of the admitted requests waited at most."""
        waits_s = sorted(self.waits_s)
        return waits_s[min(len(waits_s) - 1, int(len(waits_s) * part))] if waits_s else 0.0


@dataclass
class Driver:
    """Runs requests.

    Args:
        keys: The keys' secrets.
        limit: Tokens that the account of each key has.
    """

    keys: Sequence[str]
    limit: int
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self._spoken_for = [0] * len(self.keys)
        """Tokens that each key used, or that requests of it which run may use."""

    async def come(
        self, requests: Sequence[Request], run: Callable[[Request, Coroutine[Any, Any, None]], object], of: Any
    ) -> None:
        """Have each request begin at its time; `of` returns the admission of a router."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for request in requests:
            if (left_s := began + request.at_s - loop.time()) > 0:
                await asyncio.sleep(left_s)
            run(request, self.one(of(request.router), request))

    async def one(self, admission: Admission, request: Request) -> None:
        """Do one request."""
        outcome, key = self.outcome, request.key
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            reservation = await admission.reserve(
                self.keys[key],
                operation=_TEXT,
                provider="local-text",
                model="m",
                need=Amount(tokens=request.need),
                request_id="r",
            )
        except QuotaExhausted:
            outcome.exhausted += 1
            outcome.in_vain += self._spoken_for[key] + request.need <= self.limit
            return
        except MoaError:
            outcome.unavailable += 1
            return
        except asyncio.CancelledError:
            outcome.cut += 1
            raise
        outcome.waits_s.append(clock() - began)
        self._spoken_for[key] += request.need
        outcome.aside += request.need
        try:
            usage = usage_pb2.Usage(prompt_tokens=request.used // 4, completion_tokens=request.used - request.used // 4)
            # In parts, as a stream: what is told is charged should the router vanish.
            for part in (0.25, 0.5, 0.75):
                await asyncio.sleep(request.takes_s / 4)
                tokens = int(request.used * part)
                told = usage_pb2.Usage(prompt_tokens=tokens // 4, completion_tokens=tokens - tokens // 4)
                reservation.report(usage=told, provider="local-text", model="m")
            await asyncio.sleep(request.takes_s / 4)
            reservation.settle(usage=usage, provider="local-text", model="m")
        except asyncio.CancelledError:
            outcome.cut += 1
            raise
        else:
            outcome.answered += 1
            outcome.used += request.used
            self._spoken_for[key] -= request.need - request.used
        finally:
            outcome.aside -= request.need
