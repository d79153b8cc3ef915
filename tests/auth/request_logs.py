"""Logged requests, and teams that have theirs logged."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import psycopg

from moa.account.v1 import team_service_pb2 as team_pb
from moa.requestlog.v1.request_log_pb2 import LoggedRequest
from services.auth.adapters.request_log import RequestLog
from services.auth.adapters.request_log_exports import Exports
from services.auth.adapters.request_log_sweep import RequestLogSweep
from services.auth.domain.request_log import Search
from services.common.content_sealing import ContentKeys
from tests.auth.client import Client
from tests.auth.conftest import Auth

OLD, NEW = f"old:{'0' * 63}1", f"new:{'0' * 63}2"
PROMPT = "the plans of the tower by the sea"


async def team(client: Client, root: str, **log: Any) -> str:
    """Make a team that has its requests logged as is said; return its id."""
    made = await client.team.CreateTeam(team_pb.CreateTeamRequest(name="research"), metadata=client.sent(root))
    if log:
        request = team_pb.UpdateTeamRequest(team_id=made.team.team_id, request_log=team_pb.RequestLog(**log))
        await client.team.UpdateTeam(request, metadata=client.sent(root))
    return made.team.team_id


def content_team(auth: Auth, days: int = 30) -> str:
    """Make a team that has content logged, whatever key its replica has; return its id."""
    team_id = f"team_{secrets.token_hex(8)}"
    with psycopg.connect(auth.url) as link:
        link.execute(
            "insert into accounts (id, name, role, key_count) values (%s, 't', 'service', 1)", ("a" + team_id,)
        )
        link.execute(
            "insert into teams (id, name, account_id, rules, log_requests, log_content, log_days)"
            " values (%s, 't', %s, '[]', true, true, %s)",
            (team_id, "a" + team_id, days),
        )
    return team_id


def logged(team_id: str, *, at: datetime | None = None, content: str = "", **more: Any) -> LoggedRequest:
    """Return a request as a router tells it."""
    given = {"request_id": "r-1", "account_id": "acc_1", "key_id": "key_1", "asked": "p/m", "model": "p/m"}
    log_id = f"log_{secrets.token_hex(16)}"
    result = LoggedRequest(**{**given, "status": 200, **more}, log_id=log_id, team_id=team_id)
    result.at.FromDatetime(at or datetime.now(UTC))
    if content:
        result.content.text_request.messages.add().parts.add(text=content)
    return result


def log_of(auth: Auth, keys: str = NEW, exports: Exports | None = None) -> RequestLog:
    return RequestLog(auth.postgres, ContentKeys(keys), exports)


def sweep_of(auth: Auth) -> RequestLogSweep:
    """Return a sweep for which no time passes: how much it does at once is no question of how busy the machine is."""
    return RequestLogSweep(auth.postgres, clock=lambda: 0.0)


async def found(log: RequestLog, **search: Any) -> list[str]:
    """Return the ids of the requests that a search finds."""
    requests, _ = await log.page(Search(**search), limit=100)
    return [each.log_id for each in requests]
