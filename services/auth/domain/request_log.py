"""Requests as the log keeps them: what may be asked of it, and what it takes of routers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from moa.quota.v1 import quota_pb2
from moa.requestlog.v1 import request_log_pb2

LATEST: Final = timedelta(days=7)
"""How late a request may be told: longer than a router remembers any."""
EARLIEST: Final = timedelta(hours=1)
"""How far the clock of a router may be ahead."""
MOST_CONTENT_BYTES: Final = 512 * 1024
"""More is no router's."""
USUAL_DAYS: Final = 30
"""For how many days a team's requests are kept where nobody says."""
MOST_DAYS: Final = 366
"""For how many they may be."""
ANY_ERROR: Final = "any"
"""Asks for requests with whatever error."""

_LOG_ID: Final = re.compile(r"log_[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which requests: those of which all that is given is true."""

    team_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    account_id: str = ""
    key_id: str = ""
    model: str = ""
    status: int = 0
    error: str = ""
    tag: str = ""
    request_id: str = ""


class Wanted(NamedTuple):
    """What a team wants logged."""

    requests: bool
    content: bool


class Erasure(NamedTuple):
    """What is not to be kept, of what came until a time; None: of whatever team or account."""

    team_id: str | None
    account_id: str | None
    upto: datetime

    def covers(self, request: request_log_pb2.LoggedRequest) -> bool:
        """Return whether a request is not to be kept."""
        return (
            self.team_id in (None, request.team_id)
            and self.account_id in (None, request.account_id)
            and request.at.ToDatetime(UTC) <= self.upto
        )


def logging_of(wanted: Wanted) -> quota_pb2.RequestLogging.ValueType:
    """Return what routers are told to log."""
    if not wanted.requests:
        return quota_pb2.REQUEST_LOGGING_UNSPECIFIED
    return quota_pb2.REQUEST_LOGGING_CONTENT if wanted.content else quota_pb2.REQUEST_LOGGING_FACTS


def is_log_id(text: str) -> bool:
    """Return whether a text is an id of the log's."""
    return _LOG_ID.fullmatch(text) is not None


def acceptable(request: request_log_pb2.LoggedRequest, now: datetime) -> bool:
    """Return whether a request is one that a router may tell at this time."""
    if not is_log_id(request.log_id) or not request.team_id or not request.account_id:
        return False
    return now - LATEST < request.at.ToDatetime(UTC) < now + EARLIEST


def kept(
    requests: Iterable[request_log_pb2.LoggedRequest], wanted: Mapping[str, Wanted], erased: Iterable[Erasure]
) -> list[request_log_pb2.LoggedRequest]:
    """Return what of these is kept: what its team wants by now, and nobody had erased; without content that is not."""
    covers, result = list(erased), []
    for request in requests:
        want = wanted.get(request.team_id)
        if want is None or not want.requests or any(each.covers(request) for each in covers):
            continue
        if not want.content or request.content.ByteSize() > MOST_CONTENT_BYTES:
            request.ClearField("content")
        request.has_content = request.HasField("content")
        result.append(request)
    return result


def line(request: request_log_pb2.LoggedRequest) -> dict[str, Any]:
    """Return a request as a JSON object for exports: without content."""
    usage = request.usage
    return {
        "log_id": request.log_id,
        "request_id": request.request_id,
        "at": request.at.ToDatetime(UTC).isoformat(timespec="milliseconds"),
        "team_id": request.team_id,
        "account_id": request.account_id,
        "key_id": request.key_id,
        "operation": request.operation,
        "dialect": request.dialect,
        "asked": request.asked,
        "route": request.route,
        "model": request.model,
        "status": request.status,
        "error": request.error,
        "finish_reason": request.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "images": usage.images,
        "nano_usd": request.nano_usd,
        "queued_ms": _ms(request, "queued"),
        "first_ms": _ms(request, "first"),
        "total_ms": _ms(request, "total"),
        "attempts": [
            {"model": each.model, "after_ms": each.after.ToMilliseconds(), "error": each.error}
            for each in request.attempts
        ],
        "tags": list(request.tags),
        "stream": request.stream,
    }


def _ms(request: request_log_pb2.LoggedRequest, name: str) -> int | None:
    return int(getattr(request, name).ToMilliseconds()) if request.HasField(name) else None  # type: ignore[arg-type]
