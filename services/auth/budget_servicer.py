"""moa.account.v1.BudgetService: limits by model and tag, for administrators, and for owners within their team."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from moa.account.v1 import budget_service_pb2 as pb
from moa.account.v1 import budget_service_pb2_grpc
from moa.quota.v1 import quota_pb2
from services.auth import render, team_messages
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.budgets import Budgets
from services.auth.adapters.keys import Keys
from services.auth.adapters.offered import COUNTS_NOTHING, Offered
from services.auth.adapters.paces import PacesKept
from services.auth.adapters.teams import Teams
from services.auth.callers import Callers
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.auth.domain.records import BudgetRecord
from services.auth.domain.teams import check_part
from services.auth.minute_standings import Subject, minute_standings
from services.catalogue import LONGEST_TAG_BYTES
from services.common import page_tokens
from services.common.errors import InvalidField, NotFound, PermissionDenied
from services.common.signing import Secrets

_USER = "user:"
"""What stands before the `user` of a request, which counts as a tag."""
_WITHIN = "an owner looks after budgets of their team, of its members and of their keys; name one of them as `owner`"


class _Manager(NamedTuple):
    """Who looks after budgets."""

    account_id: str
    team_id: str | None
    """The team that they own, and beyond which they see nothing; None: an administrator."""


class BudgetServicer(budget_service_pb2_grpc.BudgetServiceServicer):
    """Answers administrators, and owners of teams about their teams' budgets."""

    def __init__(
        self,
        *,
        budgets: Budgets,
        teams: Teams,
        accounts: Accounts,
        keys_kept: Keys,
        callers: Callers,
        check_url: Callable[..., object],
        secrets: Secrets,
        paces: PacesKept,
        offered: Offered,
    ) -> None:
        self._offered = offered
        self._paces = paces
        self._check_url = check_url
        self._secrets = secrets
        self._budgets = budgets
        self._teams = teams
        self._accounts = accounts
        self._keys = keys_kept
        self._callers = callers

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Any) -> pb.ListBudgetsResponse:
        """List budgets."""
        manager = await self._manager(context, gives=False)
        if manager.team_id is not None and not await self._budgets.is_within(manager.team_id, request.owner):
            raise PermissionDenied(_WITHIN, param="owner")
        size = render.page_size(request.page_size, default=50, most=500)
        after = page_tokens.time_and_id(request.page_token)
        found = await self._budgets.page(request.owner, limit=size + 1, after=after)
        more = len(found) > size
        return pb.ListBudgetsResponse(
            budgets=list(map(_budget, found[:size], await self._warnings(found[:size]))),
            next_page_token=page_tokens.written([found[size - 1].created_at, found[size - 1].id]) if more else "",
        )

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: Any) -> pb.CreateBudgetResponse:
        """Make a budget."""
        manager = await self._manager(context, gives=True)
        if manager.team_id is not None and not await self._budgets.is_within(manager.team_id, request.owner):
            raise PermissionDenied(_WITHIN, param="owner")
        tag = _read_tag(request.tag)
        limits = render.read_key_changes(request.limits)
        if not limits:
            raise InvalidField(
                "a budget has at least one limit, such as `tokens_a_day` or `usd_a_month`", param="limits"
            )
        if manager.team_id is not None:
            check_part(limits, await self._teams.get(manager.team_id))
        record = await self._budgets.create(
            owner=request.owner,
            actor=manager.account_id,
            team_id=manager.team_id,
            name=render.read_name(request.name),
            provider=request.provider or "*",
            model=request.model or "*",
            tag=tag,
            **limits,
            **team_messages.read_warnings(request.warnings, self._check_url),
        )
        return pb.CreateBudgetResponse(budget=await self._shown(record))

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Any) -> pb.GetBudgetResponse:
        """Describe a budget."""
        manager = await self._manager(context, gives=False)
        record, spent = await self._budgets.get(request.budget_id)
        await self._check_within(record, manager)
        minutes = await minute_standings(self._paces, [Subject(record.id, record)])
        return pb.GetBudgetResponse(
            budget=await self._shown(record),
            standings=[*render.standings(record, "", spent), *minutes],
            webhook_secret=self._secrets.secret(record.id, 1) if _is_theirs(record, manager) else "",
        )

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: Any) -> pb.UpdateBudgetResponse:
        """Change a budget."""
        manager = await self._changer(context, request.budget_id)
        changes = render.read_key_changes(request.limits, request.no_limit)
        if manager.team_id is not None:
            check_part(changes, await self._teams.get(manager.team_id))
        if request.HasField("name"):
            changes["name"] = render.read_name(request.name)
        if request.HasField("warnings"):
            changes |= team_messages.read_warnings(request.warnings, self._check_url)
        record = await self._budgets.update(request.budget_id, actor=manager.account_id, **changes)
        return pb.UpdateBudgetResponse(budget=await self._shown(record))

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Any) -> pb.DeleteBudgetResponse:
        """Take a budget away, which gives whom it bound more."""
        manager = await self._changer(context, request.budget_id)
        await self._budgets.delete(request.budget_id, actor=manager.account_id)
        return pb.DeleteBudgetResponse()

    async def _shown(self, record: BudgetRecord) -> pb.Budget:
        return _budget(record, *await self._warnings([record]))

    async def _warnings(self, records: Sequence[BudgetRecord]) -> list[str]:
        """Return why each budget counts nothing; empty where it may count something."""
        rules = [quota_pb2.Rule(provider=record.provider, model=record.model) for record in records]
        return await self._offered.warnings(rules, COUNTS_NOTHING)

    async def _manager(self, context: Any, *, gives: bool) -> _Manager:
        """Return the administrator who calls, or the owner of a team.

        Raises PermissionDenied for everyone else, and for a limited key where the call gives.
        """
        caller = await self._callers.of(context)
        record = await self._accounts.get(caller.account_id)
        owns = record.team_role == "owner"
        is_admin = record.role == "admin" and (caller.key_id is None or ADMIN in caller.manages or not owns)
        if not is_admin and not owns:
            raise PermissionDenied("administrators and owners of teams only")
        scope = ADMIN if is_admin else ACCOUNT
        caller.check_manages(scope)
        if gives and caller.key_id is not None:
            await self._keys.check_gives(record.id, caller.key_id, scope)
        return _Manager(record.id, None if is_admin else record.team_id)

    async def _changer(self, context: Any, budget_id: str) -> _Manager:
        """Return who may change a budget: an administrator, or an owner of the team in which an owner made it.

        Raises PermissionDenied for everyone else.
        """
        manager = await self._manager(context, gives=True)
        if manager.team_id is not None:
            record = await self._budgets.find(budget_id)
            await self._check_within(record, manager)
            if not _is_theirs(record, manager):
                raise PermissionDenied("an administrator made this budget; ask one")
        return manager

    async def _check_within(self, record: BudgetRecord, manager: _Manager) -> None:
        """Raise NotFound for an owner of another team."""
        if manager.team_id is None or _is_theirs(record, manager):
            return
        if not await self._budgets.is_within(manager.team_id, record.owner):
            raise NotFound("no such budget")


def _read_tag(text: str) -> str:
    """Read a tag. Raises InvalidField, also for one that no request can have, which would count nothing."""
    tag = text.strip()
    if len(tag.removeprefix(_USER).encode()) > LONGEST_TAG_BYTES or not tag.isprintable() or "," in tag:
        raise InvalidField(
            f"a tag has at most {LONGEST_TAG_BYTES} bytes, behind `{_USER}` where it begins so, printable characters"
            " and no comma",
            param="tag",
        )
    return tag


def _is_theirs(record: BudgetRecord, manager: _Manager) -> bool:
    return manager.team_id is None or record.team_id == manager.team_id


def _budget(record: BudgetRecord, warning: str) -> pb.Budget:
    return pb.Budget(
        budget_id=record.id,
        name=record.name,
        owner=record.owner,
        provider=record.provider,
        model=record.model,
        tag=record.tag,
        limits=render.limits(record),
        created_at=render.timestamp(record.created_at),
        warning=warning,
        warnings=team_messages.warnings(record.warn_url, record.warn_emails),
    )
