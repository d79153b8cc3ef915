"""The inference processes behind one address: which of them has a model in memory, and which has the least to do.

gRPC takes replicas in turn. A process that has just been started loads its libraries and the model with the first call,
for a minute or two on a busy machine, and every second call would wait behind it while another process is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from moa.inference.v1 import model_service_pb2, model_service_pb2_grpc
from services.common import logs
from services.common.beats import until_beat_s
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential
from services.common.rpc.client import channel, metadata
from services.common.rpc.target import places_of
from services.common.rpc.tls import Tls

EVERY_S: Final = 1.0
"""How often each replica is asked, where there are several."""
NAMED_EVERY_S: Final = 5.0
"""How often a name is resolved."""
_FRESH_S: Final = 5.0
"""How long an answer counts: a process that says nothing for longer has the least time for more."""
WAIT_S: Final = 2.0
LOAD_S: Final = 30.0
"""What loading a model is taken to cost: so much work must wait elsewhere before a cold process is asked."""
CALL_S: Final = 1.0
"""What a call is taken to cost of which nobody can tell."""
AWAY_S: Final = 0.1
"""What the way to another zone is taken to cost: one's own is asked until so much more waits there."""
_OTHERS_SHARE: Final = 0.1
"""How much of other models' work counts. A call waits for its own model's alone, beside which theirs goes on."""
Resolve = Callable[[str, int], Awaitable[tuple[str, ...]]]
_READY: Final = grpc.ChannelConnectivity.READY
_LOADING: Final = model_service_pb2.MODEL_STATE_LOADING

_log = logs.get("replicas")


class Replica:
    """One process, as it last described itself.

    Args:
        address: `host:port` of this process alone.
        channel: To it.
    """

    __slots__ = (
        *("_begun", "_connection", "_following", "_loads", "_running", "_told_at", "_work_s", "_works"),
        *("address", "calls", "channel", "stub", "zone"),
    )

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.stub: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        self.calls: dict[Any, Any] = {}
        """What makes calls of its methods; for who calls it to keep them in."""
        self.zone = ""
        """Where it said that it runs; empty: it said nothing of it."""
        self._told_at = float("-inf")
        self._work_s = 0.0
        """Seconds of work of all models."""
        self._works: dict[str, float] = {}
        """Of each model, and of what it makes."""
        self._loads: dict[str, float] = {}
        """For each model in memory, or on its way there, and for what it makes, the seconds until it is."""
        self._begun = 0
        """Calls of this process that the replica's description does not know of yet."""
        self._running = 0
        self._connection = 0
        """Which one it is, counted."""
        self._following: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether no call of this process runs there."""
        return not self._running

    def is_known(self, now: float) -> bool:
        """Return whether the process is connected, and said lately what it does."""
        return now - self._told_at < _FRESH_S and self.channel.get_state() is _READY

    @property
    def has_told(self) -> bool:
        """Return whether the process is connected, and ever said over this connection what it does."""
        return self._told_at > float("-inf") and self.channel.get_state() is _READY

    def wait_s(self, model: str) -> float:
        """Return how long a call of a model is guessed to wait there."""
        own = self._works.get(model, 0.0)
        return self._loads.get(model, LOAD_S) + own + (self._work_s - own) * _OTHERS_SHARE + self._begun * CALL_S

    def counting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Return what makes one call, which counts as one that runs there until it ends."""

        def begin(request: Any, **named: Any) -> Any:
            call = make(request, **named)
            self._begun += 1
            self._running += 1
            call.add_done_callback(self._ended)
            return call

        return begin

    def _ended(self, _: object) -> None:
        self._running -= 1

    async def look(self, token: Credential, clock: Callable[[], float]) -> None:
        """Have the process describe itself; what it said before stands where it does not answer."""
        counted, connection = self._begun, self._connection
        request = model_service_pb2.DescribeEnginesRequest()
        try:
            described = await self.stub.DescribeEngines(request, metadata=metadata(token, "replicas"), timeout=WAIT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                _log.info("replica.not_described", address=self.address, code=error.code().name)
            return
        if connection != self._connection:
            return
        self._told_at = clock()
        self.zone = described.zone
        self._begun -= counted
        self._loads = {name: _load_s(each) for each in described.engines for name in (each.makes, each.model)}
        self._works = {}
        for each in described.engines:
            for name in (each.makes, each.model):
                self._works[name] = self._works.get(name, 0.0) + _work_s(each)
        self._work_s = sum(map(_work_s, described.engines))

    def follow(self, connected: Callable[[], None]) -> None:
        """From now on call `connected` at each new connection, and forget at its end what was said over it.

        Who is connected to next may be another process at the same address, that has nothing in memory.
        """
        self._following = asyncio.get_running_loop().create_task(self._follow(connected), name="replica")

    async def aclose(self) -> None:
        """Close the connection."""
        await cancel_and_wait(self._following)
        await self.channel.close()

    async def _follow(self, connected: Callable[[], None]) -> None:
        while True:
            state = self.channel.get_state(try_to_connect=True)
            if state is _READY:
                connected()
            await self.channel.wait_for_state_change(state)
            if state is _READY:
                self._connection += 1
                self._begun, self._told_at = 0, float("-inf")


class Replicas:
    """The replicas at an address, and which of them a call should go to.

    Args:
        address: As settings name a service. One process alone is never asked anything.
        callee: What the processes are called.
        service_token: The credential between services.
        tls: Who may answer; None: TLS is off.
        zone: Where this process runs; empty: zones make no difference.
        clock: Monotonic seconds.
        resolve: Returns the addresses of a host and port; none where it has none now.
    """

    def __init__(
        self,
        address: str,
        callee: str,
        *,
        service_token: Credential,
        tls: Tls | None = None,
        zone: str = "",
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolve | None = None,
    ) -> None:
        self._resolve = resolve or _resolved
        self._callee = callee
        self._token = service_token
        self._tls = tls
        self._zone = zone
        self._clock = clock
        self._places, self._name = places_of(address)
        self._named_at = float("-inf")
        self._replicas: dict[str, Replica] = {}
        self._leaving: set[Replica] = set()
        self._turn = 0
        self._watching: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        """Set where somebody is there of whom nothing is known."""

    def choose(self, model: str) -> Replica | None:
        """Return the replica that answers a call of a model soonest; None where it does not matter, or nobody knows.

        Of those that are alike one in this process's zone, and of those each in its turn; where nobody said anything
        lately, by what was said last. `model`: `provider/id`; or what is made ("vision") where the process itself knows
        by which model.
        """
        if len(self._replicas) < 2:
            return None
        now = self._clock()
        replicas = self._replicas.values()
        known = [each for each in replicas if each.is_known(now)] or [each for each in replicas if each.has_told]
        if not known:
            return None
        self._turn += 1
        start = self._turn % len(known)
        return min((*known[start:], *known[:start]), key=lambda each: each.wait_s(model) + self._way_s(each))

    def _way_s(self, replica: Replica) -> float:
        return AWAY_S if self._zone and replica.zone != self._zone else 0.0

    def watch(self) -> None:
        """Begin to look, where there may be several. Needs a running loop."""
        if self._watching is None and (self._name is not None or len(self._places) > 1):
            self._watching = asyncio.get_running_loop().create_task(self._follow(), name="replicas")

    async def aclose(self) -> None:
        """Stop looking, and close the channels."""
        await cancel_and_wait(self._watching)
        closing = [each.aclose() for each in (*self._replicas.values(), *self._leaving)]
        await asyncio.gather(*closing)
        self._replicas.clear()
        self._leaving.clear()

    async def look(self) -> None:
        """Learn who there is, and what each does."""
        if self._name is not None and self._clock() - self._named_at >= NAMED_EVERY_S:
            self._named_at = self._clock()
            self._places = await self._resolve(*self._name) or self._places
        self._take(self._places if len(self._places) > 1 else ())
        await asyncio.gather(*(each.look(self._token, self._clock) for each in self._replicas.values()))
        for each in [each for each in self._leaving if each.is_idle]:
            self._leaving.discard(each)
            await each.aclose()

    async def _follow(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("replicas.not_looked_at", callee=self._callee)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until_beat_s(EVERY_S if self._replicas else NAMED_EVERY_S)):
                    await self._connected.wait()
            self._connected.clear()

    def _take(self, places: tuple[str, ...]) -> None:
        for address in [address for address in self._replicas if address not in places]:
            # What runs there ends there.
            self._leaving.add(self._replicas.pop(address))
        for address in places:
            if address not in self._replicas:
                made = self._replicas[address] = Replica(address, channel(address, self._callee, self._tls))
                made.follow(self._connected.set)


def _load_s(report: model_service_pb2.EngineReport) -> float:
    """Return how long it takes until a model that is in memory, or on its way there, is there."""
    return LOAD_S * (1 - report.percent / 100) if report.state == _LOADING else 0.0


def _work_s(report: model_service_pb2.EngineReport) -> float:
    """Return how long what a model has to do is guessed to take."""
    return max(report.work_seconds, report.users * CALL_S if not report.HasField("work_seconds") else 0.0)


async def _resolved(host: str, port: int) -> tuple[str, ...]:
    """Return the addresses of a name; none where it has none now."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    hosts = sorted({str(each[4][0]) for each in found})
    return tuple(f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts)
