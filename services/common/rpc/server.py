"""Run one gRPC server as a process: bind, answer health and reflection, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common import logs, memory, tracing
from services.common.byte_admission import ByteAdmission
from services.common.credential import Credential
from services.common.helper_process import HelperProcess
from services.common.rpc import threads
from services.common.rpc.health import DATABASE, READY, Health
from services.common.rpc.interceptor import Around, Interceptor, Reword
from services.common.rpc.internals import accept, batch
from services.common.rpc.reading import MAX_MESSAGE_BYTES
from services.common.rpc.receiving import Welcome
from services.common.rpc.session.server import SessionServer
from services.common.rpc.tls import Tls

LAST_WORDS_S = 1.0
"""How long calls that are ended at a stop may take to say so."""

SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # What the edge lets in, and what it adds: headers beyond gRPC's own 8 KiB would read as too large a body.
    ("grpc.max_metadata_size", 96 * 1024),
    ("grpc.absolute_max_metadata_size", 96 * 1024),
    # A second process on the same port would silently take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # With the probe megabytes of a request that waits for room would come all the same.
    ("grpc.http2.bdp_probe", 0),
)


class CannotListen(Exception):
    """The address is taken or not ours. Not a SystemExit: that would end the loop before anything is put away."""


class AnyServer(Protocol):
    """What services are added to: a `Server`, or a `LocalServer`."""

    grpc: Any
    """What generated code adds servicers to."""

    def offer(self, *service_names: str) -> None:
        """Name the full services that were added."""

    async def start(self, address: str) -> int:
        """Begin to serve; give the port."""

    async def stop(self, drain_s: float) -> None:
        """Refuse new calls, let running ones go on for `drain_s`, then end."""


def _ignore(service_name: str, method_handlers: Any) -> None:
    """Do nothing: generated code names the same methods again, for gRPC to find them faster."""


class Server:
    """A gRPC server with health, reflection and the interceptor.

    Args:
        service_token: Credential that callers must send; None where callers bring keys of their own.
        connection_age_s: After how long clients are asked to connect anew; 0: never.
        tls: Who may connect, and by what this process is known; None: TLS is off.
        reword, welcome, admission, helper, around: As the interceptor's.
        ready, database: Whether requests should be sent here, and whether the database answers, for whoever asks for
            the health of these.
    """

    def __init__(
        self,
        *,
        service_token: Credential | None,
        connection_age_s: float = 0.0,
        tls: Tls | None = None,
        reword: Reword | None = None,
        welcome: Welcome | None = None,
        admission: ByteAdmission | None = None,
        helper: HelperProcess | None = None,
        around: Around | None = None,
        ready: Callable[[], bool] = lambda: True,
        database: Callable[[], bool] | None = None,
    ) -> None:
        interceptor = Interceptor(
            service_token=service_token,
            callers=tls.names if tls is not None else None,
            reword=reword,
            welcome=welcome,
            admission=admission,
            helper=helper,
            around=around,
        )
        # Running calls have no bound: they end as they would have.
        age = [("grpc.max_connection_age_ms", round(connection_age_s * 1000))] if connection_age_s else []
        accept.install()
        batch.install()
        self.grpc = grpc.aio.server(interceptors=[interceptor], options=[*SERVER_OPTIONS, *age])
        # For methods that generated code registers apart, grpc.aio has a task each, and at every call waits anew for
        # any of them: fifty Python calls at 18 methods. Found by their names they need one task, and the interceptor
        # remembers what it found.
        self.grpc.add_registered_method_handlers = _ignore  # type: ignore[method-assign]
        self.sessions = SessionServer(interceptor) if service_token is not None else None
        """Where other services' calls share a stream; None, before it starts: each is a gRPC call of its own."""
        self._add = self.grpc.add_generic_rpc_handlers
        self.grpc.add_generic_rpc_handlers = self._add_handlers  # type: ignore[method-assign, assignment]
        self.health = Health({READY: ready, **({DATABASE: database} if database is not None else {})})
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.grpc)
        self._names: list[str] = []
        self._tls = tls
        self._asked: grpc.aio.Server | None = None
        self.health_port = 0
        """Where health is asked without TLS, where the port speaks it."""

    def _add_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve methods in calls of their own and within sessions, as generated code asks for it."""
        self._add(handlers)
        if self.sessions is not None:
            self.sessions.handling.add(handlers)

    def offer(self, *service_names: str) -> None:
        """Name the full services that were added, for reflection and health."""
        self._names.extend(service_names)

    async def start(self, address: str) -> int:
        """Bind `address` and begin to serve; give the port. Ready at once: set health otherwise before."""
        reflection.enable_server_reflection(
            (*self._names, reflection.SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name),
            self.grpc,
        )
        port = self._bind(self.grpc, address, self._tls)
        if self.sessions is not None:
            self._add((self.sessions.handler(),))
            await self.sessions.start()
        await self.grpc.start()
        for name in ("", *self.health.checks, *self._names):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        if self._tls is not None and self._tls.health_listen:
            # A kubelet has no certificate.
            self._asked = grpc.aio.server(options=SERVER_OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self._asked)
            self.health_port = self._bind(self._asked, self._tls.health_listen, None)
            await self._asked.start()
        return port

    @staticmethod
    def _bind(server: grpc.aio.Server, address: str, tls: Tls | None) -> int:
        try:
            if tls is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, tls.certificates.server_credentials()))
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {address}: {error}") from None

    async def stop(self, drain_s: float, last_words: Callable[[], None] | None = None) -> None:
        """Refuse new calls, let running ones go on for `drain_s`, then end.

        `last_words` is called then where some still run: they have a moment to tell their callers. A stream that is
        just ended looks, over HTTP, like a complete one.
        """
        await self.health.enter_graceful_shutdown()
        if self.sessions is not None:
            self.sessions.leave()
        ending = asyncio.ensure_future(self.grpc.stop(drain_s + (LAST_WORDS_S if last_words else 0.0)))
        await asyncio.wait({ending}, timeout=drain_s)
        if last_words is not None and not ending.done():
            last_words()
        await ending
        if self.sessions is not None:
            await self.sessions.aclose()
        if self._asked is not None:
            await self._asked.stop(0)


def run(main: Callable[[asyncio.Event], Awaitable[None]], process: str) -> None:
    """Run the main coroutine of a process under uvloop; its argument is set on SIGTERM and SIGINT.

    `process` is what traces call it.
    """

    async def started() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        memory.collect_seldom()
        async with threads.late():
            await main(stop)

    try:
        tracing.configure(process)
        uvloop.run(started())
    except CannotListen as refusal:
        logs.get("process").error("process.refused", why=str(refusal))
        raise SystemExit(1) from None
    except SystemExit as ending:
        if isinstance(ending.code, str):
            logs.get("process").error("process.refused", why=ending.code)
        raise
    finally:
        tracing.shutdown()
