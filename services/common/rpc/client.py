"""Channels to other Moa services, and whether the process at the other end is there, or worth waiting for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import grpc

from services.common import tracing
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential, sent
from services.common.rpc import call as calls
from services.common.rpc.reading import MAX_MESSAGE_BYTES
from services.common.rpc.target import target_of
from services.common.rpc.tls import Tls

PATIENCE_S: Final = 30.0
"""How long a process that went is waited for, from when it went. One that never was there is not waited for."""

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    # How long what was sent may stay without a word from the other's kernel (TCP_USER_TIMEOUT): a host that is cut off
    # says nothing at all. However busy a process is, its kernel answers.
    ("grpc.keepalive_timeout_ms", 4_000),
    # What really bounds the answer to a keepalive's ping (grpcio 1.85); a minute by default.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # With the probe a stream may run megabytes ahead of a reader that has stopped; services are near each other.
    ("grpc.http2.bdp_probe", 0),
    # Reconnect quickly to a service that was restarted.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # In spite of its name, how long one attempt to connect may take: a busy machine needs more than a moment.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # gRPC shares connections by address within a process, and with them the back-off after a failure: a server that is
    # new at an old address would seem dead.
    ("grpc.use_local_subchannel_pool", 1),
    # Without a policy gRPC asks again only what no server has begun (gRFC A6, transparent retries): where connections
    # have an age, a call is now and then on its way when its connection goes. No generation is done twice.
    ("grpc.enable_retries", 1),
    # A proxy of the environment (`https_proxy`) is for providers: services are asked directly.
    ("grpc.enable_http_proxy", 0),
    # Several replicas behind one name are used in turn.
    ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
)


def channel(address: str, callee: str = "", tls: Tls | None = None) -> grpc.aio.Channel:
    """Open a channel to `address` (`host:port`; several with commas between are called in turn). Raises ValueError.

    With `tls` who answers must be the process `callee`, by its certificate.
    """
    if tls is None:
        return grpc.aio.insecure_channel(target_of(address), options=_OPTIONS)
    from services.common.rpc.secure_channel import SecureChannel

    made = SecureChannel(target_of(address), tls.certificates.name_of(callee), tls.certificates, _OPTIONS)
    return cast(grpc.aio.Channel, made)


def metadata(
    service_token: Credential, request_id: str, *more: tuple[str, str], span: tracing.Span | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the metadata of an internal call: the credential, the request's id, its trace, and `more`.

    `span` is the call's own; None: the call belongs to the current one.
    """
    known = ((calls.SERVICE_KEY, sent(service_token)), (calls.REQUEST_ID_KEY, request_id))
    return (*known, *tracing.outgoing(span), *more)


class ConnectionWatch:
    """Watches a channel's connections, and keeps them up while nothing is asked. Needs a running loop when first asked.

    Args:
        channel: To one process or to several alike; it is there as long as one of them is.
        clock: Monotonic seconds.
    """

    def __init__(self, channel: grpc.aio.Channel, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._channel = channel
        self._clock = clock
        self._there = asyncio.Event()
        self._was_there = False
        self._lost_at: float | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def is_restarting(self) -> bool:
        """Return whether the process was there and is not, for no longer than `PATIENCE_S`."""
        if self._watching is None:
            self.watch()
        return self._lost_at is not None and self._clock() - self._lost_at < PATIENCE_S

    async def returned(self) -> None:
        """Return when the process is there, or is not waited for any longer."""
        self.watch()
        if self._lost_at is None:
            return
        left_s = self._lost_at + PATIENCE_S - self._clock()
        if left_s > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._there.wait()
            except TimeoutError:
                return

    async def aclose(self) -> None:
        """Stop watching."""
        await cancel_and_wait(self._watching)

    def watch(self) -> None:
        """Begin to watch. Asking does too, but then nothing is known of before."""
        if self._watching is None:
            self._note(self._channel.get_state(try_to_connect=True))
            self._watching = asyncio.get_running_loop().create_task(self._follow(), name="reach")

    async def _follow(self) -> None:
        while True:
            state = self._channel.get_state(try_to_connect=True)
            self._note(state)
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            await self._channel.wait_for_state_change(state)

    def _note(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._was_there, self._lost_at = True, None
            self._there.set()
        elif self._was_there and self._lost_at is None:
            self._lost_at = self._clock()
            self._there.clear()
