"""moa.requestlog.v1 over the log of requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Final

from moa.requestlog.v1 import request_log_pb2, request_log_service_pb2_grpc
from moa.requestlog.v1 import request_log_service_pb2 as pb
from services.auth.adapters.request_log import RequestLog
from services.auth.domain.request_log import acceptable
from services.common import logs
from services.common.clock import now_utc
from services.common.errors import InvalidField

_log = logs.get("request_log")

_MOST: Final = 1000

Told = Callable[[Sequence[request_log_pb2.LoggedRequest]], None]


class RequestLogServicer(request_log_service_pb2_grpc.RequestLogServiceServicer):
    """Takes what routers log.

    Args:
        told: Hears what was written, without content.
    """

    def __init__(self, log: RequestLog, *, told: Told | None = None) -> None:
        self._log = log
        self._told = told

    async def WriteRequests(self, request: pb.WriteRequestsRequest, context: Any) -> pb.WriteRequestsResponse:
        """Keep requests."""
        if len(request.requests) > _MOST:
            raise InvalidField(f"at most {_MOST} in one call", param="requests")
        for each in request.dropped:
            _check_day(each.day)
        now = now_utc()
        good = [each for each in request.requests if acceptable(each, now)]
        if len(good) < len(request.requests):
            # Nobody who tells them again would do better.
            _log.warning("requests.refused", count=len(request.requests) - len(good))
        written = await self._log.write(good, request.dropped, holder=request.holder)
        if self._told is not None and written:
            self._told(written)
        return pb.WriteRequestsResponse()


def _check_day(text: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise InvalidField("a day is written YYYY-MM-DD", param="dropped.day") from None
