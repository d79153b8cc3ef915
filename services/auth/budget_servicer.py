"""moa.account.v1.BudgetService: limits by model and tag, for administrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moa.account.v1 import budget_service_pb2 as pb
from moa.account.v1 import budget_service_pb2_grpc
from services.auth import render, team_messages
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.budgets import Budgets
from services.auth.adapters.keys import Keys
from services.auth.callers import Callers
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.auth.domain.records import BudgetRecord
from services.common import page_tokens
from services.common.errors import InvalidField, PermissionDenied
from services.common.signing import Secrets

_LONGEST_TAG_BYTES = 69
"""`user:` and 64 bytes."""


class BudgetServicer(budget_service_pb2_grpc.BudgetServiceServicer):
    """Answers administrators, and owners of teams about their teams' budgets."""

    def __init__(
        self,
        *,
        budgets: Budgets,
        accounts: Accounts,
        keys_kept: Keys,
        callers: Callers,
        check_url: Callable[..., object],
        secrets: Secrets,
    ) -> None:
        self._check_url = check_url
        self._secrets = secrets
        self._budgets = budgets
        self._accounts = accounts
        self._keys = keys_kept
        self._callers = callers

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Any) -> pb.ListBudgetsResponse:
        """List budgets."""
        await self._administrator(context, gives=False, team_id=request.owner)
        size = render.page_size(request.page_size, default=50, most=500)
        after = page_tokens.time_and_id(request.page_token)
        found = await self._budgets.page(request.owner, limit=size + 1, after=after)
        more = len(found) > size
        return pb.ListBudgetsResponse(
            budgets=[_shown(record) for record in found[:size]],
            next_page_token=page_tokens.written([found[size - 1].created_at, found[size - 1].id]) if more else "",
        )

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: Any) -> pb.CreateBudgetResponse:
        """Make a budget."""
        actor = await self._administrator(context, gives=True)
        tag = request.tag.strip()
        if len(tag.encode()) > _LONGEST_TAG_BYTES or not tag.isprintable() or "," in tag:
            raise InvalidField(
                f"a tag has at most {_LONGEST_TAG_BYTES} bytes, printable characters and no comma", param="tag"
            )
        limits = render.read_key_changes(request.limits)
        if not limits:
            raise InvalidField(
                "a budget has at least one limit, such as `tokens_a_day` or `usd_a_month`", param="limits"
            )
        record = await self._budgets.create(
            owner=request.owner,
            actor=actor,
            name=render.read_name(request.name),
            provider=request.provider or "*",
            model=request.model or "*",
            tag=tag,
            **limits,
            **team_messages.read_warnings(request.warnings, self._check_url),
        )
        return pb.CreateBudgetResponse(budget=_shown(record))

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Any) -> pb.GetBudgetResponse:
        """Describe a budget."""
        await self._administrator(context, gives=False)
        record, spent = await self._budgets.get(request.budget_id)
        return pb.GetBudgetResponse(
            budget=_shown(record),
            standings=render.standings(record, "", spent),
            webhook_secret=self._secrets.secret(record.id, 1),
        )

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: Any) -> pb.UpdateBudgetResponse:
        """Change a budget."""
        actor = await self._administrator(context, gives=True)
        changes = render.read_key_changes(request.limits, request.no_limit)
        if request.HasField("name"):
            changes["name"] = render.read_name(request.name)
        if request.HasField("warnings"):
            changes |= team_messages.read_warnings(request.warnings, self._check_url)
        record = await self._budgets.update(request.budget_id, actor=actor, **changes)
        return pb.UpdateBudgetResponse(budget=_shown(record))

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Any) -> pb.DeleteBudgetResponse:
        """Take a budget away, which gives whom it bound more."""
        actor = await self._administrator(context, gives=True)
        await self._budgets.delete(request.budget_id, actor=actor)
        return pb.DeleteBudgetResponse()

    async def _administrator(self, context: Any, *, gives: bool, team_id: str = "") -> str:
        """Return the administrator who calls, or the owner of a team who reads.

        Raises PermissionDenied for everyone else, and for a limited key where the call gives.
        """
        caller = await self._callers.of(context)
        record = await self._accounts.get(caller.account_id)
        if not gives and team_id and (record.team_id, record.team_role) == (team_id, "owner"):
            caller.check_manages(ADMIN if record.role == "admin" and ADMIN in caller.manages else ACCOUNT)
            return record.id
        if record.role != "admin":
            raise PermissionDenied("administrators only")
        caller.check_manages(ADMIN)
        if gives and caller.key_id is not None:
            await self._keys.check_gives(record.id, caller.key_id)
        return record.id


def _shown(record: BudgetRecord) -> pb.Budget:
    return pb.Budget(
        budget_id=record.id,
        name=record.name,
        owner=record.owner,
        provider=record.provider,
        model=record.model,
        tag=record.tag,
        limits=render.limits(record),
        created_at=render.timestamp(record.created_at),
        warnings=team_messages.warnings(record.warn_url, record.warn_emails),
    )
