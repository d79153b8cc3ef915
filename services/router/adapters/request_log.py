"""Recordings of requests on their way to the auth service, which keeps them.

They wait in memory, so much at most; what there is no room for is dropped and counted. A request never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from prometheus_client import Counter as Metric

from moa.requestlog.v1 import request_log_pb2, request_log_service_pb2_grpc
from moa.requestlog.v1 import request_log_service_pb2 as pb
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.router.domain.ports import LoggedKey
from services.router.domain.request_log import Recording, Unread

_log = logs.get("request_log")

DROPPED: Final = Metric(
    "moa_request_log_dropped_total",
    "Requests that could not be logged, by what of them: all of it, or what was said.",
    ["what"],
)

EVERY_S: Final = 1.0
"""How far batches are apart."""
MOST: Final = 10_000
"""Recordings that wait at most."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""Bytes that recordings hold at most, of running requests too."""
_AT_ONCE: Final = 500
_AT_ONCE_BYTES: Final = 4 * 1024 * 1024
_CALL_S: Final = 10.0
_LAST_S: Final = 3.0
"""How long a process that ends tries to tell the rest."""
_LONGEST_PAUSE_S: Final = 30.0
_MOST_TRIES: Final = 3
_AWAY: Final = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED))
"""What says nothing of a batch: it is told until it arrives."""


class RequestLog:
    """Takes recordings, and tells them in batches.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
        holder: This process's name, unique.
        known: Returns who a key belongs to, as far as that is known without a call.
        most, most_bytes: As the constants.
        every_s: How far batches are apart.
    """

    def __init__(
        self,
        auth: grpc.aio.Channel,
        *,
        service_token: Credential,
        holder: str,
        known: Callable[[str], LoggedKey | None],
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        every_s: float = EVERY_S,
    ) -> None:
        self._stub: Any = request_log_service_pb2_grpc.RequestLogServiceStub(auth)
        self._token, self._request_id = service_token, f"log-{holder}"
        self._holder = holder
        self.known = known
        self._most = most
        self._most_bytes = most_bytes
        self._every_s = every_s
        self._whole: deque[Recording | Unread] = deque()
        self._unsettled: dict[int, Recording] = {}
        self._bytes = 0
        self._batch: list[request_log_pb2.LoggedRequest] = []
        """What is told now, until somebody has it."""
        self._tries = 0
        """How often auth was there and failed on it."""
        self._dropped: Counter[tuple[str, str]] = Counter()
        """By team and day, since the start: told as sums, so that it may be told twice."""
        self._untold: set[tuple[str, str]] = set()
        self._came = asyncio.Event()
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether anything runs in the background: nothing does until the first request is logged."""
        return self._running is not None

    @property
    def held_bytes(self) -> int:
        """Bytes that recordings hold."""
        return self._bytes

    def room(self, size_bytes: int) -> bool:
        """As `Log.room`."""
        if self._bytes + size_bytes > self._most_bytes:
            return False
        self._bytes += size_bytes
        return True

    def add(self, recording: Recording | Unread) -> None:
        """As `Log.add`: it is dropped where there is no room, or only what was said in it."""
        waited = self._unsettled.pop(id(recording), None) is not None
        if not waited and not self._takes(recording):
            return
        self._whole.append(recording)
        self._wake()

    def wait(self, recording: Recording) -> None:
        """As `Log.wait`."""
        if self._takes(recording):
            self._unsettled[id(recording)] = recording

    def _takes(self, recording: Recording | Unread) -> bool:
        """Take a recording, without its content where there is too little room; return whether it was taken."""
        if len(self._whole) + len(self._unsettled) + len(self._batch) >= self._most:
            self._let_go(recording)
            self._drop(recording.team_id)
            return False
        if not self.room(recording.size_bytes):
            self._let_go(recording)
            recording.without_content()
            DROPPED.labels("content").inc()
            if not self.room(recording.size_bytes):
                self._drop(recording.team_id)
                return False
        recording.held_bytes += recording.size_bytes
        return True

    def _let_go(self, recording: Recording | Unread) -> None:
        self._bytes -= recording.held_bytes
        recording.held_bytes = 0

    def _drop(self, team_id: str, count: int = 1) -> None:
        DROPPED.labels("request").inc(count)
        whose = team_id, datetime.now(UTC).date().isoformat()
        self._dropped[whose] += count
        self._untold.add(whose)
        self._wake()

    def _wake(self) -> None:
        self._came.set()
        if len(self._whole) >= _AT_ONCE:
            self._full.set()
        if self._running is None:
            # Where no team wants it, nothing runs.
            self._running = asyncio.create_task(self._run(), name="request log")

    async def _run(self) -> None:
        pause_s = self._every_s
        while True:
            await self._came.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._full.wait()
            self._came.clear()
            self._full.clear()
            try:
                while self._whole or self._batch or self._untold:
                    await self._send(_CALL_S)
                pause_s = self._every_s
            except grpc.aio.AioRpcError as failure:
                _log.warning("request_log.postponed", code=failure.code().name, waiting=len(self._whole))
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                self._came.set()
            except Exception:
                # A bug must not end the only thing that tells.
                _log.exception("request_log.failed", lost=len(self._batch))
                self._lose()

    async def _send(self, within_s: float) -> None:
        """Tell one batch. Raises AioRpcError where that failed; one that auth fails on again and again is lost."""
        if not self._batch:
            self._batch, self._tries = await self._next(), 0
        untold, self._untold = self._untold, set()
        dropped = [pb.Dropped(team_id=team, day=day, requests=self._dropped[team, day]) for team, day in untold]
        request = pb.WriteRequestsRequest(requests=self._batch, dropped=dropped, holder=self._holder)
        try:
            await self._stub.WriteRequests(request, metadata=metadata(self._token, self._request_id), timeout=within_s)
        except BaseException as failure:
            self._untold |= untold
            if isinstance(failure, grpc.aio.AioRpcError) and failure.code() not in _AWAY:
                self._tries += 1
                if self._tries >= _MOST_TRIES:
                    self._lose()
            raise
        self._batch = []

    async def _next(self) -> list[request_log_pb2.LoggedRequest]:
        """Return the next batch, as messages."""
        recordings: list[Recording | Unread] = []
        size = 0
        while self._whole and len(recordings) < _AT_ONCE and size < _AT_ONCE_BYTES:
            recording = self._whole.popleft()
            size += recording.held_bytes
            recordings.append(recording)
        try:
            return await asyncio.to_thread(_messages, recordings)
        finally:
            for recording in recordings:
                self._let_go(recording)

    def _lose(self) -> None:
        for request in self._batch:
            self._drop(request.team_id)
        self._batch = []

    async def aclose(self) -> None:
        """Tell the rest, also what nobody has settled, as far as it is known; give up on it soon."""
        await cancel_and_wait(self._running)
        self._whole.extend(self._unsettled.values())
        self._unsettled.clear()
        try:
            async with asyncio.timeout(_LAST_S):
                while self._whole or self._batch or self._untold:
                    await self._send(_LAST_S)
        except (grpc.aio.AioRpcError, TimeoutError):
            _log.warning("request_log.lost", requests=len(self._whole) + len(self._batch))


def _messages(recordings: Sequence[Recording | Unread]) -> list[request_log_pb2.LoggedRequest]:
    return [recording.message() for recording in recordings]
