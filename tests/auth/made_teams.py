"""Teams that tests make and put accounts into."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from moa.account.v1 import account_pb2
from moa.account.v1 import team_service_pb2 as pb
from moa.quota.v1 import quota_pb2
from tests import waiting
from tests.auth.client import Client, code_of

OWNER, MEMBER = account_pb2.TEAM_ROLE_OWNER, account_pb2.TEAM_ROLE_MEMBER
ANY = quota_pb2.Rule(provider="*", model="*")


async def team(client: Client, root: str, **more: Any) -> str:
    """Make a team; return its id."""
    request = pb.CreateTeamRequest(**{"name": "research", "rules": [ANY], **more})
    return (await client.team.CreateTeam(request, metadata=client.sent(root))).team.team_id


async def put(client: Client, root: str, team_id: str, account_id: str, role: Any = MEMBER) -> None:
    """Put an account into a team."""
    request = pb.AddMemberRequest(team_id=team_id, account_id=account_id, role=role)
    await client.team.AddMember(request, metadata=client.sent(root))


async def refusal(client: Client, request: Message, who: Any) -> grpc.StatusCode:
    """Return what the method fails with that takes such a request."""
    method = getattr(client.team, type(request).__name__.removesuffix("Request"))
    return await code_of(method(request, metadata=who))


async def eventually(condition: Callable[[], Awaitable[bool]], expected: bool = True) -> None:
    """Wait until a condition is as expected: changes count within two seconds."""
    end, pauses = time.monotonic() + 60, waiting.pauses()
    while await condition() != expected:
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(next(pauses))
