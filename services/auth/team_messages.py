"""Teams, invitations and warnings as the messages of moa.account.v1, and what callers write of them read with care."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from moa.account.v1 import account_pb2, team_service_pb2
from moa.quota.v1 import quota_pb2
from services.auth import render
from services.auth.adapters.verified_keys import rule_of
from services.auth.domain.records import InvitationRecord, TeamRecord
from services.common.errors import Conflict, InvalidField

_MOST_EMAILS: Final = 10


def team(record: TeamRecord, rule_warnings: Sequence[str] = ()) -> team_service_pb2.Team:
    """Return a team, with what is odd of its rules."""
    return team_service_pb2.Team(
        team_id=record.id,
        name=record.name,
        account_id=record.account_id,
        limits=render.limits(record),
        rules=rules(record),
        rule_warnings=rule_warnings,
        created_at=render.timestamp(record.created_at),
        warnings=warnings(record.warn_url, record.warn_emails),
        request_log=team_service_pb2.RequestLog(
            on=record.log_requests, content=record.log_content, days=record.log_days
        ),
    )


def rules(record: TeamRecord) -> list[quota_pb2.Rule]:
    """Return what a team's accounts may use."""
    return [rule_of(rule) for rule in record.rules]


def read_request_log(given: team_service_pb2.RequestLog, *, seals: bool) -> dict[str, Any]:
    """Read what is to be logged, by column. Raises Conflict for content where the operator has no key for it."""
    if given.content and not seals:
        message = "prompts and answers are kept encrypted, and the operator has set no key: MOA_REQUEST_LOG_KEYS"
        raise Conflict(message, param="request_log.content")
    columns = {"on": "log_requests", "content": "log_content", "days": "log_days"}
    return {column: getattr(given, name) for name, column in columns.items() if given.HasField(name)}  # type: ignore[arg-type]


def read_team_name(text: str) -> str:
    """Read a team's name. Raises InvalidField, also for none: refusals and warnings call the team by it."""
    name = render.read_name(text)
    if not name:
        raise InvalidField("name is required: refusals and warnings call the team by it", param="name")
    return name


def invitation(record: InvitationRecord) -> team_service_pb2.Invitation:
    """Return an invitation, without its secret."""
    return team_service_pb2.Invitation(
        invitation_id=record.id,
        team_id=record.team_id or "",
        role=render.TEAM_ROLES.get(record.team_role or "", account_pb2.TEAM_ROLE_UNSPECIFIED),
        made_by=record.made_by,
        created_at=render.timestamp(record.created_at),
        expires_at=render.timestamp(record.expires_at),
        used_by=record.used_by or "",
        revoked=record.revoked_at is not None,
    )


def warnings(url: str, emails: Sequence[str]) -> account_pb2.Warnings | None:
    """Return who is warned; None for nobody."""
    return account_pb2.Warnings(webhook_url=url, emails=emails) if url or emails else None


def read_warnings(given: account_pb2.Warnings, check_url: Callable[..., object]) -> dict[str, Any]:
    """Read who is warned, by column. Raises InvalidField, also for a URL that may not be called."""
    if given.webhook_url:
        check_url(given.webhook_url, param="warnings.webhook_url")
    if len(given.emails) > _MOST_EMAILS:
        raise InvalidField(f"at most {_MOST_EMAILS} addresses", param="warnings.emails")
    return {"warn_url": given.webhook_url, "warn_emails": sorted({render.read_email(one) for one in given.emails})}
