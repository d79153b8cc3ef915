"""A channel over TLS whose certificate may change while calls run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from services.common import logs
from services.common.rpc.certificates import Certificates, Held, credentials_of

_TOLD_S: Final = 10.0
_READY = grpc.ChannelConnectivity.READY

_log = logs.get("certificates")


class SecureChannel:
    """What callers need of a channel to one process; calls that began with a certificate end with it.

    A new certificate makes a new connection, which calls take once it is there, or at once where there is no other.

    Args:
        target: As gRPC takes it.
        callee: The process that must be there, by the name that its certificate is for.
        certificates: Of this process.
        options: Of the channel.
    """

    def __init__(
        self, target: str, callee: str, certificates: Certificates, options: Sequence[tuple[str, Any]]
    ) -> None:
        self._target = target
        self._callee = callee
        self._certificates = certificates
        # One certificate names all replicas: it is not their addresses that are checked.
        self._options = (*options, ("grpc.ssl_target_name_override", callee))
        self._closing: set[asyncio.Task[None]] = set()
        self._next: _Link | None = None
        self._told_at = float("-inf")
        self._changed = asyncio.Event()
        self._link = self._linked(certificates.held(looks=False))

    def _linked(self, held: Held) -> _Link:
        return _Link(grpc.aio.secure_channel(self._target, credentials_of(held), options=self._options), held)

    # What generated code and watchers ask for.

    def unary_unary(self, path: str, *codec: Any, **named: Any) -> Callable[..., Any]:
        """Return what makes calls of a method."""
        return _Method(self, "unary_unary", path, codec, named)

    def unary_stream(self, path: str, *codec: Any, **named: Any) -> Callable[..., Any]:
        """Return what makes calls of a method."""
        return _Method(self, "unary_stream", path, codec, named)

    def stream_unary(self, path: str, *codec: Any, **named: Any) -> Callable[..., Any]:
        """Return what makes calls of a method."""
        return _Method(self, "stream_unary", path, codec, named)

    def stream_stream(self, path: str, *codec: Any, **named: Any) -> Callable[..., Any]:
        """Return what makes calls of a method."""
        return _Method(self, "stream_stream", path, codec, named)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return how the connection is."""
        return self.link().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        """Return when the state is another, or may be."""
        link = self.link()
        if link.channel.get_state() is not last:
            return
        waits = [
            asyncio.ensure_future(each) for each in (link.channel.wait_for_state_change(last), self._changed.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def channel_ready(self) -> None:
        """Return when it is connected."""
        while (state := self.get_state(try_to_connect=True)) is not _READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Close all connections."""
        self._changed.set()
        links = [self._link, *([self._next] if self._next else [])]
        for each in links:
            await each.channel.close(grace)
        if self._closing:
            await asyncio.wait(self._closing)

    async def __aenter__(self) -> SecureChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # How.

    def link(self) -> _Link:
        """Return the connection that a call takes now."""
        held = self._certificates.held(looks=False)
        if held is not self._link.held and (self._next is None or self._next.held is not held):
            if self._next is not None:
                self._retire_unused(self._next)
            self._next = self._linked(held)
        if self._next is not None and (
            self._next.channel.get_state(try_to_connect=True) is _READY or self._link.channel.get_state() is not _READY
        ):
            old, self._link, self._next = self._link, self._next, None
            self._changed.set()
            self._changed = asyncio.Event()
            self._retire_unused(old)
        return self._link

    def _retire_unused(self, link: _Link) -> None:
        link.is_retired = True
        if not link.running:
            self._retire(link)

    def _retire(self, link: _Link) -> None:
        task = asyncio.get_running_loop().create_task(link.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def begin(self, method: _Method, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return a call of a method, which began."""
        link = self.link()
        call = link.call_of(method)(*given, **named)
        link.running += 1

        def ended(_: object) -> None:
            link.running -= 1
            if link.is_retired and not link.running:
                self._retire(link)
            elif link.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._tell(call)

        call.add_done_callback(ended)
        return call

    def _tell(self, call: Any) -> None:
        """Log why there is no connection, now and then: a certificate that is refused looks to callers like nobody."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._told_at < _TOLD_S:
            return
        self._told_at = loop.time()
        task = loop.create_task(self._tell_details(call))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _tell_details(self, call: Any) -> None:
        _log.warning("connection.failed", callee=self._callee, target=self._target, why=await call.details())


class _Link:
    """The connection of one certificate."""

    def __init__(self, channel: grpc.aio.Channel, held: Held) -> None:
        self.channel = channel
        self.held = held
        self.running = 0
        self.is_retired = False
        self._calls: dict[_Method, Callable[..., Any]] = {}

    def call_of(self, method: _Method) -> Callable[..., Any]:
        """Return what makes calls of a method over this connection."""
        made = self._calls.get(method)
        if made is None:
            made = self._calls[method] = getattr(self.channel, method.shape)(method.path, *method.codec, **method.named)
        return made


class _Method:
    """Makes calls of a method, each over the connection of its time."""

    def __init__(
        self, channel: SecureChannel, shape: str, path: str, codec: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._channel = channel
        self.shape = shape
        self.path = path
        self.codec = codec
        self.named = named

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._channel.begin(self, given, named)
