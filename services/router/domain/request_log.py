"""What is logged of a request whose team wants that, noted as it goes, and told in one message when it is over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from google.protobuf.duration_pb2 import Duration

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from moa.requestlog.v1 import request_log_pb2 as pb
from services.catalogue import Model
from services.common.errors import HTTP_STATUS, Internal, MoaError, word
from services.quota_client.amounts import NOTHING, Amount
from services.quota_client.labels import Labels, labelled
from services.router.domain.caller import Caller
from services.router.domain.kept_content import MOST_BYTES, content_of
from services.router.domain.operation import Call
from services.router.domain.ports import LoggedKey, Reservation

_LEFT: Final = 499
"""The status of a request whose caller left before the end, as proxies log it."""
_CANCELLED: Final = "cancelled"
_FACTS_BYTES: Final = 1024
"""What a request takes beside its content, about."""
_MOST_ATTEMPTS: Final = 64
_MOST_NAME: Final = 500


class Log(Protocol):
    """Where recordings go."""

    def known(self, key: str) -> LoggedKey | None:
        """Return who a key belongs to, as far as that is known here without a call."""

    def room(self, size_bytes: int) -> bool:
        """Return whether there is room for so much of an answer; it is taken then, until the recording is told."""

    def add(self, recording: Recording | Unread) -> None:
        """Take a recording that is whole."""

    def wait(self, recording: Recording) -> None:
        """Take a recording of a request that is over and whose consumption is not known yet."""


class Recording:
    """What is known of one request.

    It is whole once the request is over and what it consumed is known, and goes to the log then.

    Args:
        labels: What the request is called in reports.
        asked: The model that was asked for.
        route: The virtual model that was asked for; empty where it was none.
    """

    __slots__ = (
        "_asked",
        "_attempts",
        "_awaited",
        "_began_s",
        "_came_ns",
        "_charged",
        "_cut",
        "_ended",
        "_error",
        "_finish_reason",
        "_first_s",
        "_key",
        "_labels",
        "_log",
        "_messages",
        "_model",
        "_operation",
        "_request",
        "_request_id",
        "_route",
        "_settled",
        "_status",
        "_stream",
        "_total_s",
        "_usage",
        "held_bytes",
    )

    def __init__(
        self,
        log: Log,
        call: Call[Any, Any],
        caller: Caller,
        key: LoggedKey,
        labels: Labels,
        asked: str,
        route: str = "",
    ) -> None:
        request = call.request
        self._log = log
        self._operation = call.operation
        self._request = request if key.request_logging == quota_pb2.REQUEST_LOGGING_CONTENT else None
        self._stream = bool(getattr(request, "stream", False))
        self._key = key
        self._request_id = caller.request_id
        self._asked = asked
        self._labels = labels
        self._route = route
        self._began_s = caller.began
        self._came_ns = time.time_ns() - int((time.perf_counter() - caller.began) * 1e9)
        self._attempts: list[list[Any]] = []
        self._model = ""
        self._first_s: float | None = None
        self._total_s = 0.0
        self._status = 200
        self._error = ""
        self._finish_reason = ""
        self._usage: usage_pb2.Usage | None = None
        self._charged: Amount = NOTHING
        self._messages: list[Any] = []
        self._cut = False
        self._ended = self._settled = False
        self._awaited = False
        """Whether whoever was asked has yet to say what it consumed."""
        self.held_bytes = 0
        """How much of the answer it holds, by the log's leave."""

    @property
    def team_id(self) -> str:
        """The team whose log it is for."""
        return self._key.team_id

    @property
    def size_bytes(self) -> int:
        """How much memory it takes, about, beside what it holds of the answer."""
        return _FACTS_BYTES + (0 if self._request is None else int(self._request.ByteSize()))

    def asking(self, model: Model) -> None:
        """Note that a target is asked."""
        if len(self._attempts) < _MOST_ATTEMPTS:
            self._attempts.append([model.full_id, time.perf_counter() - self._began_s, ""])

    def failed(self, model: Model, error: MoaError) -> None:
        """Note that a target failed that was asked."""
        name = model.full_id
        for attempt in reversed(self._attempts):
            if attempt[0] == name and not attempt[2]:
                attempt[2] = word(error.reason)
                return

    def began(self, model: Model) -> None:
        """Note that an answer began."""
        self._first_s = time.perf_counter() - self._began_s
        self._model = model.full_id

    def saw_messages(self, messages: Iterable[Any]) -> None:
        """Note messages that are on their way to the caller."""
        for message in messages:
            for event in message.events:
                kind = event.WhichOneof("event")
                if not self._finish_reason and (reason := self._operation.outcome(event, kind)):
                    self._finish_reason = reason
            if self._request is not None and not self._cut and self._operation.name != "embedding":
                size = message.ByteSize()
                if self.held_bytes > 2 * MOST_BYTES or not self._log.room(size):
                    self._cut = True
                else:
                    self.held_bytes += size
                    self._messages.append(message)

    def broke(self, error: MoaError) -> None:
        """Note that the answer failed after it had begun."""
        self._error, self._status = word(error.reason), HTTP_STATUS[error.reason]
        error.logged = True

    def settled(self, usage: usage_pb2.Usage | None, paid: Any = None) -> None:
        """Note what was consumed, None: nothing, and the reservation that tells what was `charged` for it."""
        self._usage, self._settled = usage, True
        if paid is not None:
            self._charged = paid.charged
        if self._ended:
            self._log.add(self)

    def booked_by(
        self, reservation: Reservation, then: Callable[[usage_pb2.Usage], None]
    ) -> Callable[[usage_pb2.Usage], None]:
        """Return what hears, besides `then`, what was booked of a call that was left."""
        if reservation.operation == quota_pb2.OPERATION_TASK:
            # The task's service books; nobody hears it here.
            self.settled(None)
            return then

        self._awaited = True

        def known(usage: usage_pb2.Usage) -> None:
            self.settled(usage, reservation)
            then(usage)

        return known

    def ended(self, model: Model, *, left: bool) -> None:
        """Note that the answer is over. `left`: the caller left before its end."""
        self._model = model.full_id
        if left and not self._error:
            self._status, self._error = _LEFT, _CANCELLED
        self._over()

    def refused(self, error: BaseException) -> None:
        """Note that the request came to nothing."""
        if isinstance(error, MoaError):
            self.broke(error)
        elif isinstance(error, Exception):
            self.broke(Internal(""))
        else:
            self._status, self._error = _LEFT, _CANCELLED
        self._settled = self._settled or not self._awaited
        self._over()

    def _over(self) -> None:
        self._total_s = time.perf_counter() - self._began_s
        self._ended = True
        if self._settled:
            self._log.add(self)
        else:
            self._log.wait(self)

    def without_content(self) -> None:
        """Let go of what was said, for which there is no room."""
        self._request, self._messages = None, []

    def message(self) -> pb.LoggedRequest:
        """Return the message that tells it. Takes moments for what is large: call it off the loop."""
        dialect, tags = self._labels
        key = self._key
        result = pb.LoggedRequest(
            log_id=_log_id(self._came_ns),
            request_id=self._request_id,
            team_id=key.team_id,
            account_id=key.account_id,
            key_id=key.key_id,
            operation=self._operation.name,
            dialect=dialect,
            asked=self._asked[:_MOST_NAME],
            route=self._route,
            model=self._model,
            status=self._status,
            error=self._error,
            finish_reason=self._finish_reason,
            usage=self._usage,
            nano_usd=self._charged.nano_usd,
            total=_duration(self._total_s),
            tags=tags,
            stream=self._stream,
        )
        result.at.FromNanoseconds(self._came_ns)
        if self._attempts:
            result.queued.CopyFrom(_duration(self._attempts[0][1]))
        if self._first_s is not None:
            result.first.CopyFrom(_duration(self._first_s))
        for model, after_s, error in self._attempts:
            result.attempts.add(model=model, after=_duration(after_s), error=error)
        if self._request is not None:
            result.content.CopyFrom(content_of(self._request, self._messages, cut=self._cut))
        return result


class Unread:
    """What is known of a request that could not be read: whose it is, how it came, and why it was refused."""

    __slots__ = ("_came_ns", "_error", "_key", "_labels", "_request_id", "_status", "held_bytes")

    def __init__(self, key: LoggedKey, labels: Labels, request_id: str, error: MoaError) -> None:
        self._key, self._labels, self._request_id = key, labels, request_id
        self._error, self._status = word(error.reason), HTTP_STATUS[error.reason]
        self._came_ns = time.time_ns()
        self.held_bytes = 0
        error.logged = True

    @property
    def team_id(self) -> str:
        """The team whose log it is for."""
        return self._key.team_id

    @property
    def size_bytes(self) -> int:
        """How much memory it takes, about."""
        return _FACTS_BYTES

    def without_content(self) -> None:
        """Nothing: none is kept of it."""

    def message(self) -> pb.LoggedRequest:
        """Return the message that tells it."""
        dialect, tags = self._labels
        result = pb.LoggedRequest(
            log_id=_log_id(self._came_ns),
            request_id=self._request_id,
            team_id=self._key.team_id,
            account_id=self._key.account_id,
            key_id=self._key.key_id,
            dialect=dialect,
            status=self._status,
            error=self._error,
            tags=tags,
        )
        result.at.FromNanoseconds(self._came_ns)
        return result


def _log_id(came_ns: int) -> str:
    return f"log_{came_ns // 1_000_000:012x}{os.urandom(10).hex()}"


def _duration(seconds: float) -> Duration:
    result = Duration()
    result.FromMicroseconds(int(seconds * 1e6))
    return result


def refused(log: Log, call: Call[Any, Any], caller: Caller, error: BaseException, *, asked: str) -> None:
    """Log a request that came to nothing, where its key is known and its team wants that."""
    recording = call.recording
    if recording is not None:
        recording.refused(error)
        return
    key = log.known(caller.key)
    if key is None or not key.request_logging:
        return
    labels = labelled(caller.dialect, caller.tags).of_user(getattr(call.request, "user", ""))
    recording = Recording(log, call, caller, key, labels, asked)
    recording.settled(None)
    recording.refused(error)
