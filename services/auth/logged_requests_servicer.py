"""moa.account.v1.RequestLogService: the log of a team's requests, for its owners and for administrators."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from moa.account.v1 import request_log_service_pb2 as pb
from moa.account.v1 import request_log_service_pb2_grpc
from services.auth import render
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.request_log import RequestLog
from services.auth.callers import Callers
from services.auth.domain.request_log import Search, is_log_id
from services.auth.managers import manager_of
from services.common import page_tokens
from services.common.errors import InvalidField, NotFound


class LoggedRequestsServicer(request_log_service_pb2_grpc.RequestLogServiceServicer):
    """Answers owners about their own team, and administrators about all."""

    def __init__(self, *, log: RequestLog, accounts: Accounts, keys_kept: Keys, callers: Callers) -> None:
        self._log = log
        self._accounts = accounts
        self._keys = keys_kept
        self._callers = callers

    async def ListLoggedRequests(
        self, request: pb.ListLoggedRequestsRequest, context: Any
    ) -> pb.ListLoggedRequestsResponse:
        """List requests."""
        await self._manager(context, request.team_id)
        size = render.page_size(request.page_size, default=50, most=500)
        found, dropped = await self._log.page(
            _search(request), limit=size + 1, after=page_tokens.time_and_id(request.page_token)
        )
        last = found[size - 1] if len(found) > size else None
        return pb.ListLoggedRequestsResponse(
            requests=found[:size],
            next_page_token=page_tokens.written([last.at.ToDatetime(UTC), last.log_id]) if last is not None else "",
            dropped=dropped,
        )

    async def GetLoggedRequest(self, request: pb.GetLoggedRequestRequest, context: Any) -> pb.GetLoggedRequestResponse:
        """Describe a request."""
        actor = await self._manager(context, request.team_id)
        if not is_log_id(request.log_id):
            raise NotFound("no such request in the log")
        found = await self._log.get(request.log_id, request.team_id, actor=actor)
        return pb.GetLoggedRequestResponse(request=found.request, content_unreadable=found.unreadable)

    async def DeleteLoggedRequest(
        self, request: pb.DeleteLoggedRequestRequest, context: Any
    ) -> pb.DeleteLoggedRequestResponse:
        """Delete a request."""
        actor = await self._manager(context, request.team_id)
        if is_log_id(request.log_id):
            await self._log.delete(request.log_id, request.team_id, actor=actor)
        return pb.DeleteLoggedRequestResponse()

    async def DeleteLoggedRequests(
        self, request: pb.DeleteLoggedRequestsRequest, context: Any
    ) -> pb.DeleteLoggedRequestsResponse:
        """Delete what there is of an account or a team."""
        actor = await self._manager(context, request.team_id)
        if not request.team_id and not request.account_id:
            raise InvalidField("say which team's or which account's requests", param="account_id")
        await self._log.erase(request.team_id, request.account_id, actor=actor)
        return pb.DeleteLoggedRequestsResponse()

    async def _manager(self, context: Any, team_id: str) -> str:
        """Return the account of an owner of the team, or of an administrator. Raises PermissionDenied."""
        caller = await self._callers.of(context)
        manager = await manager_of(self._accounts, self._keys, caller, team_id, gives=False)
        return manager.account_id


def _search(request: pb.ListLoggedRequestsRequest) -> Search:
    return Search(
        team_id=request.team_id,
        since=_time(request.since, "since") if request.HasField("since") else None,
        until=_time(request.until, "until") if request.HasField("until") else None,
        account_id=request.account_id,
        key_id=request.key_id,
        model=request.model,
        status=_status(request.status),
        error=request.error,
        tag=request.tag,
        request_id=request.request_id,
    )


def _status(given: int) -> int:
    if given and not 100 <= given <= 599:
        raise InvalidField("an HTTP status is from 100 to 599", param="status")
    return given


def _time(given: Timestamp, param: str) -> datetime:
    try:
        return given.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidField("no time that there is", param=param) from None
