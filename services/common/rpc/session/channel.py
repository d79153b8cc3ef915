"""A channel whose calls share a session with each process that serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import grpc

from moa.session.v1 import session_service_pb2
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential
from services.common.large import LARGE_BYTES as HEAVY_BYTES
from services.common.rpc import call as calls
from services.common.rpc.call import Metadata
from services.common.rpc.client import metadata
from services.common.rpc.large_request import with_large_request
from services.common.rpc.receiving import LARGE_BYTES
from services.common.rpc.session.client import Session, SessionCall
from services.common.rpc.session.server import SERVICE

_METHOD: Final = f"/{SERVICE}/Carry"
_HELLO_S: Final = 10.0
"""How long a process may take to say who it is."""
AGE_S: Final = 60.0
"""A session that is older is replaced, so that it takes new connections and certificates; its calls end where they
began."""
_ENDING_S: Final = 1.0
"""How long the other side may take to end a stream that this one has ended."""
SOON_S: Final = 0.5
_LATE_S: Final = 8.0
"""Processes are looked for again after so long, at first and later, while calls are made."""
_OLD_S: Final = 60.0
"""How long calls are plain where one of the processes has no sessions: the others would have all of them."""

_log = logs.get("session")


class SessionChannel:
    """What callers need of a channel: calls go by sessions, to each process in turn, and in the plain way without any.

    Which processes there are, it finds out by opening streams until one of them is known already: gRPC gives each to
    the next process. It looks again while calls are made, which keeps an idle one quiet.

    Args:
        plain: gRPC's channel, whose connections are used, and which is closed with it.
        service_token: The credential between services.
    """

    def __init__(self, plain: Any, *, service_token: Credential) -> None:
        self._plain = plain
        self._carry = plain.stream_stream(_METHOD)
        self._token = service_token
        self.sessions: list[Session] = []
        """Those that take calls, one to a process."""
        self._turn = 0
        self._running: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._due = True
        """Whether the next call looks for processes."""
        self._pause_s = SOON_S
        self._timer: asyncio.TimerHandle | None = None
        # How its connections are.
        self.get_state = plain.get_state
        self.wait_for_state_change = plain.wait_for_state_change
        # Calls whose requests are streams.
        self.stream_unary = plain.stream_unary
        self.stream_stream = plain.stream_stream

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Callable[..., Any]:
        """Return what makes calls of a method."""
        return self._method("unary_unary", path, request_serializer, response_deserializer)

    def unary_stream(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Callable[..., Any]:
        """Return what makes calls of a method."""
        return self._method("unary_stream", path, request_serializer, response_deserializer)

    @property
    def streams(self) -> int:
        """Return how many streams are open, those that take no more calls included."""
        return len(self._running)

    async def look(self) -> None:
        """Return when each process that is there has a session, as far as it serves them."""
        self._look()
        assert self._looking is not None
        await asyncio.wait({self._looking})

    async def close(self, grace: float | None = None) -> None:
        """End all calls."""
        self._due = False
        await cancel_and_wait(self._looking)
        if self._timer is not None:
            self._timer.cancel()
        await cancel_and_wait(*self._running, again_s=2 * _ENDING_S)
        await self._plain.close(grace)

    def _method(self, shape: str, path: str, serialize: Any, deserialize: Any) -> Callable[..., Any]:
        plain = getattr(self._plain, shape)(path, request_serializer=None, response_deserializer=deserialize)
        # A call holds what it is given to its end: of a large one that is a list, empty once it was sent.
        large = getattr(self._plain, shape)(path, request_serializer=list.pop, response_deserializer=deserialize)

        in_turn = with_large_request(self._plain, shape, path, serialize, deserialize)

        def begin(request: Any, *, metadata: Metadata = (), timeout: float | None = None) -> Any:
            size = calls.current().request_bytes
            if size > HEAVY_BYTES:
                return in_turn(request, size, metadata=metadata, timeout=timeout)
            data = serialize(request)
            session = self._session()
            if len(data) > LARGE_BYTES:
                return large([data], metadata=metadata, timeout=timeout)
            if session is None:
                return plain(data, metadata=metadata, timeout=timeout)
            call = SessionCall(path, deserialize, timeout)
            call.begin(session, plain, data, metadata)
            return call

        return begin

    def _session(self) -> Session | None:
        """Return the session that the next call takes; None: it is a plain one."""
        if self._due:
            self._look()
        if not self.sessions:
            return None
        self._turn += 1
        return self.sessions[self._turn % len(self.sessions)]

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._due = False
            self._looking = asyncio.get_running_loop().create_task(self._look_around(), name="sessions")

    async def _look_around(self) -> None:
        try:
            while await self._open():
                self._pause_s = SOON_S
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._be_due)
            self._pause_s = min(2 * self._pause_s, _LATE_S)

    def _be_due(self) -> None:
        self._due = True

    async def _open(self) -> bool:
        """Open one more stream; return whether it is to a process that had none."""
        stream = self._carry(metadata=metadata(self._token, "session"))
        kept = False
        try:
            async with asyncio.timeout(_HELLO_S):
                first = await stream.read()
            if first is grpc.aio.EOF:
                return False
            hello = session_service_pb2.CarryResponse.FromString(first).hello
            known = next((each for each in self.sessions if each.process == hello.process), None)
            if known is not None and asyncio.get_running_loop().time() - known.since < AGE_S:
                return False
            session = Session(hello.process)
            await session.connect(hello)
            kept = True
            self._begin(session, stream)
            if known is not None:
                known.retire()
            else:
                _log.info("session.opened", within_host=session.socket is not None)
            return known is None
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._pause_s = _OLD_S
                for each in self.sessions[:]:
                    each.retire()
            return False
        except TimeoutError:
            return False
        finally:
            if not kept:
                stream.cancel()

    def _begin(self, session: Session, stream: Any) -> None:
        session.retired = lambda: self._retire(session)
        self.sessions.append(session)
        task = asyncio.get_running_loop().create_task(self._follow(session, stream), name="session")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _retire(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
            self._pause_s = SOON_S

    async def _follow(self, session: Session, stream: Any) -> None:
        """Say and hear what there is until the process or this side ends the session."""
        hearing = asyncio.create_task(_hear(session, stream))
        others = [asyncio.create_task(each) for each in (session.writer.write_to(stream.write), session.over.wait())]
        try:
            await asyncio.wait({hearing, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._retire(session)
            session.lose()
            await cancel_and_wait(*others)
            if not hearing.done():
                with contextlib.suppress(grpc.aio.BaseError, asyncio.InvalidStateError):
                    await stream.done_writing()
                # Of a stream that both have ended nothing is on its way any more.
                await asyncio.wait({hearing}, timeout=_ENDING_S)
            stream.cancel()
            await cancel_and_wait(hearing)


async def _hear(session: Session, stream: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):  # its calls are told
        while (data := await stream.read()) is not grpc.aio.EOF:
            session.received(data)
