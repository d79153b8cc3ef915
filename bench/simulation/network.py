"""Regions, how far they are apart, what is cut off from what, and the line from a router to auth."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import simpy

from services.common.errors import MoaError
from services.common.rpc import status


@dataclass(frozen=True, kw_only=True)
class Map:
    """Which regions there are, and the seconds that a message takes between two of them."""

    regions: int
    within_s: float = 0.0002
    """Between a router and an auth of one region, and what both take for a call."""
    apart_s: float = 0.025
    """Between neighbours; the farthest of ten are five neighbours apart, on a ring."""

    def far_s(self, one: int, other: int) -> float:
        """Return how long a message is on its way between two regions; nothing within one."""
        steps = abs(one - other)
        return self.apart_s * min(steps, self.regions - steps)


class Network:
    """Carries messages, unless a region is cut off from the others."""

    def __init__(self, env: simpy.Environment, regions: Map) -> None:
        self.env = env
        self.map = regions
        self._cut: set[int] = set()
        self.calls: Counter[str] = Counter()
        """Calls of auth that arrived, by method."""
        self.request_bytes = 0

    def cut(self, region: int) -> None:
        """Let nothing more through between a region and the others."""
        self._cut.add(region)

    def mend(self, region: int) -> None:
        """Let it through again."""
        self._cut.discard(region)

    def reaches(self, one: int, other: int) -> bool:
        """Return whether messages arrive."""
        return one == other or not (one in self._cut or other in self._cut)


class Callee(Protocol):
    """What a call arrives at: an auth replica."""

    region: int
    up: bool

    async def answer(self, method: str, request: Any) -> Any: ...  # noqa: D102


@dataclass
class Line:
    """What a router has in the place of a gRPC channel: calls replicas in turn, of its own region while any is up."""

    network: Network
    region: int
    replicas: Sequence[Callee]
    up: bool = True
    """Whether the router's process is."""
    _turns: Any = field(default_factory=itertools.count, repr=False)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return what a channel says while anybody can be called."""
        found = self._reachable()
        return grpc.ChannelConnectivity.READY if found else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        """Return when the state is another."""
        while self.get_state() is last:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.25)

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Callable[..., Awaitable[Any]]:
        """Return what makes a call of a method."""
        name = method.rpartition("/")[2]

        async def call(request: Any, **given: Any) -> Any:
            try:
                async with asyncio.timeout(given.get("timeout")):
                    return await self._called(name, request)
            except TimeoutError:
                raise _failed(grpc.StatusCode.DEADLINE_EXCEEDED) from None

        return call

    async def _called(self, method: str, request: Any) -> Any:
        network = self.network
        reachable = self._reachable()
        if not reachable:
            # Dropped packets are not refused: whoever sends waits.
            await asyncio.sleep(1.0)
            raise _failed(grpc.StatusCode.UNAVAILABLE)
        callee = reachable[next(self._turns) % len(reachable)]
        one_way_s = network.map.within_s + network.map.far_s(self.region, callee.region)
        await asyncio.sleep(one_way_s)
        if not callee.up or not network.reaches(self.region, callee.region):
            raise _failed(grpc.StatusCode.UNAVAILABLE)
        network.calls[method] += 1
        network.request_bytes += request.ByteSize()
        try:
            answer = await callee.answer(method, request)
        except MoaError as refused:
            await asyncio.sleep(one_way_s)
            raise _told(refused) from None
        await asyncio.sleep(one_way_s)
        if not callee.up or not self.up or not network.reaches(self.region, callee.region):
            raise _failed(grpc.StatusCode.UNAVAILABLE)
        return answer

    def _reachable(self) -> list[Callee]:
        if not self.up:
            return []
        there = [one for one in self.replicas if one.up and self.network.reaches(self.region, one.region)]
        return [one for one in there if one.region == self.region] or there


def _failed(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def _told(error: MoaError) -> grpc.aio.AioRpcError:
    """Return what a caller gets of an error that auth told."""
    trailing = grpc.aio.Metadata(*status.trailers_of(error, ""))
    return grpc.aio.AioRpcError(status.CODE[error.reason], grpc.aio.Metadata(), trailing, error.message)
