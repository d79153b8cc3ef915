"""moa.account.v1.AdminService: what administrators do."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from google.api import httpbody_pb2

from moa.account.v1 import account_pb2, admin_service_pb2_grpc
from moa.account.v1 import admin_service_pb2 as pb
from services.auth import identity_messages, render, spend_pages, usage_pages
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.audit import AuditLog
from services.auth.adapters.identities import Identities
from services.auth.adapters.keys import Keys
from services.auth.adapters.offered import Offered
from services.auth.adapters.rules import Rules
from services.auth.adapters.second_factors import SecondFactors
from services.auth.adapters.sessions import Sessions
from services.auth.adapters.spend import Spend
from services.auth.adapters.usage import Usage
from services.auth.callers import INVITATION_PREFIX, Callers
from services.auth.domain import keys
from services.auth.domain.accounts import LOCAL_ONLY, KeyLimits
from services.auth.domain.passwords import Passwords
from services.auth.domain.powers import ADMIN
from services.auth.domain.records import AccountRecord
from services.auth.domain.spend import Report
from services.auth.domain.spend import read as read_report
from services.auth.lifetimes import read_lifetime, read_overlap
from services.common import page_tokens
from services.common.errors import InvalidField, NotFound, PermissionDenied
from services.quota_client import priorities

_WEEK_S = 7 * 86_400.0
_YEAR_S = 366 * 86_400.0


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """Answers administrators, and refuses everyone else."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        rules: Rules,
        audit_log: AuditLog,
        keys_kept: Keys,
        sessions: Sessions,
        usage: Usage,
        spend: Spend,
        callers: Callers,
        passwords: Passwords,
        pepper: bytes,
        offered: Offered,
        second_factors: SecondFactors,
        identities: Identities,
    ) -> None:
        self._identities = identities
        self._accounts = accounts
        self._rules = rules
        self._audit_log = audit_log
        self._keys = keys_kept
        self._sessions = sessions
        self._usage = usage
        self._spend = spend
        self._callers = callers
        self._passwords = passwords
        self._pepper = pepper
        self._offered = offered
        self._second_factors = second_factors

    async def _administrator(self, context: Any, *, gives: bool) -> str:
        """Return the administrator who calls; `gives` is false where the call only reads or takes away.

        Raises PermissionDenied for everyone else, and for a limited key where the call gives.
        """
        caller = await self._callers.of(context)
        record = await self._accounts.get(caller.account_id)
        if record.role != "admin":
            raise PermissionDenied("administrators only")
        caller.check_manages(ADMIN)
        if gives and caller.key_id is not None:
            await self._keys.check_gives(record.id, caller.key_id)
        return record.id

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsResponse:
        """List or search accounts."""
        await self._administrator(context, gives=False)
        size = render.page_size(request.page_size, default=50, most=500)
        found = await self._accounts.search(request.query[:200], limit=size + 1, after=_place(request.page_token))
        page = found[:size]
        return pb.ListAccountsResponse(
            accounts=[render.account(record) for record in page],
            next_page_token=_token(page[-1]) if len(found) > size else "",
        )

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.CreateAccountResponse:
        """Create an account."""
        role = render.ROLE_NAMES.get(request.role, "user")
        actor = await self._administrator(context, gives=True)
        if request.unlimited and role != "service":
            raise InvalidField("only service accounts can be unlimited", param="unlimited")
        key = keys.make(self._pepper) if request.with_key else None
        rules = render.read_rules(request.rules, "rules")
        account_id = await self._accounts.create(
            role=role,
            limits=render.read_limits(request.limits, role=role),
            rules=rules or [LOCAL_ONLY],
            name=render.read_name(request.name),
            email=render.read_email(request.email) if request.email else None,
            password_hash=await self._passwords.hash(request.password) if request.password else None,
            unlimited=request.unlimited,
            priority=render.read_priority(request.priority) or priorities.NORMAL,
            actor=actor,
            key=key,
        )
        account = render.account(await self._accounts.get(account_id))
        warnings = await self._offered.numbered(rules)
        return pb.CreateAccountResponse(account=account, api_key=key.secret if key else "", warnings=warnings)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.GetAccountResponse:
        """Describe an account."""
        await self._administrator(context, gives=False)
        return pb.GetAccountResponse(account=render.account(await self._accounts.get(request.account_id)))

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.UpdateAccountResponse:
        """Change an account."""
        actor = await self._administrator(context, gives=not _only_disables(request))
        record = await self._existing(request.account_id)
        if record.id == actor:
            _check_self(request)
        if request.second_factor:
            raise InvalidField("nobody sets another's second factor; it is taken away by false", param="second_factor")
        # Before anything is changed: a refused change changes nothing.
        if request.HasField("zone") and not await self._accounts.knows_zone(request.zone):
            raise InvalidField("no such time zone", param="zone")
        changes = _changes(request, record)
        if request.HasField("password"):
            changes["password_hash"] = await self._passwords.hash(request.password) if request.password else None
        if changes:
            record = await self._accounts.update(record.id, actor=actor, **changes)
        if request.HasField("second_factor"):
            await self._second_factors.remove(record.id, actor=actor)
        if request.HasField("zone"):
            record = await self._accounts.set_zone(record.id, request.zone, actor=actor)
        if request.HasField("disabled") and request.disabled != (record.disabled_at is not None):
            record = await self._accounts.disable(record.id, actor=actor, disabled=request.disabled)
        return pb.UpdateAccountResponse(account=render.account(record))

    async def DeleteAccount(self, request: pb.DeleteAccountRequest, context: Any) -> pb.DeleteAccountResponse:
        """Delete an account."""
        actor = await self._administrator(context, gives=True)
        if request.account_id == actor:
            raise InvalidField("you cannot delete your own account; ask another administrator", param="account_id")
        return pb.DeleteAccountResponse(
            account=render.account(await self._accounts.delete(request.account_id, actor=actor))
        )

    async def _existing(self, account_id: str) -> AccountRecord:
        """Return an account that is to be changed. Raises NotFound, also where it was deleted."""
        record = await self._accounts.get(account_id)
        if record.deleted_at is not None:
            raise NotFound("the account was deleted")
        return record

    async def AddCredits(self, request: pb.AddCreditsRequest, context: Any) -> pb.AddCreditsResponse:
        """Add credits."""
        actor = await self._administrator(context, gives=True)
        await self._existing(request.account_id)
        if not request.micro_credits or abs(request.micro_credits) > 10**15:
            raise InvalidField("an amount must be from 0.000001 to 1,000,000,000 credits", param="micro_credits")
        record = await self._accounts.add_credits(
            request.account_id,
            request.micro_credits,
            reference=request.reference[:200] or secrets.token_hex(12),
            actor=actor,
        )
        return pb.AddCreditsResponse(account=render.account(record))

    async def ListRules(self, request: pb.ListRulesRequest, context: Any) -> pb.ListRulesResponse:
        """List what an account may use."""
        await self._administrator(context, gives=False)
        records = await self._rules.of(request.account_id)
        warnings = await self._offered.warnings(render.rule(one).rule for one in records)
        return pb.ListRulesResponse(rules=list(map(render.rule, records, warnings)))

    async def GrantRule(self, request: pb.GrantRuleRequest, context: Any) -> pb.GrantRuleResponse:
        """Let an account use models."""
        actor = await self._administrator(context, gives=True)
        if not request.HasField("rule"):
            # An empty rule permits everything: whoever means that says `"rule": {}`.
            raise InvalidField("rule is required", param="rule")
        (rule,) = render.read_rules([request.rule], "rule")
        if len(await self._rules.of(request.account_id)) >= render.MAX_RULES:
            raise InvalidField(f"at most {render.MAX_RULES} rules for an account", param="rule")
        await self._existing(request.account_id)
        record = await self._rules.grant(request.account_id, rule, actor=actor)
        return pb.GrantRuleResponse(rule=render.rule(record, *await self._offered.warnings([rule])))

    async def RevokeRule(self, request: pb.RevokeRuleRequest, context: Any) -> pb.RevokeRuleResponse:
        """Take a permission away."""
        actor = await self._administrator(context, gives=False)
        await self._rules.revoke(request.account_id, request.rule_id, actor=actor)
        return pb.RevokeRuleResponse()

    async def ListAccountKeys(self, request: pb.ListAccountKeysRequest, context: Any) -> pb.ListAccountKeysResponse:
        """List an account's keys."""
        await self._administrator(context, gives=False)
        await self._accounts.get(request.account_id)
        return pb.ListAccountKeysResponse(keys=[render.key(one) for one in await self._keys.list(request.account_id)])

    async def CreateAccountKey(self, request: pb.CreateAccountKeyRequest, context: Any) -> pb.CreateAccountKeyResponse:
        """Make a key for an account."""
        actor = await self._administrator(context, gives=True)
        await self._existing(request.account_id)
        key = keys.make(self._pepper, request.style or "moa")
        limits = KeyLimits(priority=render.read_priority(request.priority), **render.read_key_changes(request.limits))
        record = await self._keys.create(
            request.account_id,
            key,
            name=render.read_name(request.name),
            expires_in_s=read_lifetime(request.expires_in) if request.HasField("expires_in") else None,
            scopes=render.read_rules(request.scopes, "scopes"),
            limits=limits,
            manages=render.read_manages(request.manages),
            actor=actor,
        )
        return pb.CreateAccountKeyResponse(key=render.key(record), api_key=key.secret)

    async def RotateAccountKey(self, request: pb.RotateAccountKeyRequest, context: Any) -> pb.RotateAccountKeyResponse:
        """Replace an account's key."""
        actor = await self._administrator(context, gives=True)
        old = await self._keys.get(request.account_id, request.key_id)
        key = keys.make(self._pepper, old.prefix.partition("-")[0] or "moa")
        overlap_s = read_overlap(request.overlap) if request.HasField("overlap") else None
        record = await self._keys.rotate(request.account_id, old.id, key, actor=actor, overlap_s=overlap_s)
        return pb.RotateAccountKeyResponse(key=render.key(record), api_key=key.secret)

    async def UpdateAccountKey(self, request: pb.UpdateAccountKeyRequest, context: Any) -> pb.UpdateAccountKeyResponse:
        """Limit an account's key, or rename it."""
        actor = await self._administrator(context, gives=True)
        changes = render.read_key_changes(request.limits, request.no_limit)
        if request.HasField("name"):
            changes["name"] = render.read_name(request.name)
        if request.HasField("priority"):
            changes["priority"] = render.read_priority(request.priority)
        record = await self._keys.update(request.account_id, request.key_id, actor=actor, **changes)
        return pb.UpdateAccountKeyResponse(key=render.key(record))

    async def RevokeAccountKey(self, request: pb.RevokeAccountKeyRequest, context: Any) -> pb.RevokeAccountKeyResponse:
        """Revoke an account's key."""
        actor = await self._administrator(context, gives=False)
        record = await self._keys.revoke(request.account_id, request.key_id, actor=actor)
        return pb.RevokeAccountKeyResponse(key=render.key(record))

    async def ListAccountIdentities(
        self, request: pb.ListAccountIdentitiesRequest, context: Any
    ) -> pb.ListAccountIdentitiesResponse:
        """List an account's identities."""
        await self._administrator(context, gives=False)
        await self._accounts.get(request.account_id)
        found = await self._identities.list(request.account_id)
        return pb.ListAccountIdentitiesResponse(identities=map(identity_messages.linked, found))

    async def UnlinkAccountIdentity(
        self, request: pb.UnlinkAccountIdentityRequest, context: Any
    ) -> pb.UnlinkAccountIdentityResponse:
        """Take an account's identity away."""
        actor = await self._administrator(context, gives=False)
        await self._identities.unlink(request.account_id, request.identity_id, actor=actor)
        return pb.UnlinkAccountIdentityResponse()

    async def GetAccountUsage(self, request: pb.GetAccountUsageRequest, context: Any) -> pb.GetAccountUsageResponse:
        """Tell what an account used."""
        await self._administrator(context, gives=False)
        await self._accounts.get(request.account_id)
        rows, next_page = await usage_pages.page(self._usage, request.account_id, request)
        return pb.GetAccountUsageResponse(rows=rows, next_page_token=next_page)

    async def ReportSpend(self, request: pb.ReportSpendRequest, context: Any) -> pb.ReportSpendResponse:
        """Report what was spent."""
        await self._administrator(context, gives=False)
        return await spend_pages.page(self._spend, _report(request), request, pb.ReportSpendResponse)

    async def DownloadSpendReport(self, request: pb.DownloadSpendReportRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Report what was spent, as a file."""
        await self._administrator(context, gives=False)
        spend_pages.complete(request, context, "/moa.account.v1.AdminService/DownloadSpendReport")
        return await spend_pages.file(self._spend, _report(request))

    async def ListLedger(self, request: pb.ListLedgerRequest, context: Any) -> pb.ListLedgerResponse:
        """Read an account's ledger."""
        await self._administrator(context, gives=False)
        await self._accounts.get(request.account_id)
        size = render.page_size(request.page_size, default=100, most=1000)
        before = page_tokens.number(request.page_token)
        rows = await self._usage.ledger(request.account_id, limit=size + 1, before=before)
        more = len(rows) > size
        since = await self._usage.complete_since(request.account_id)
        return pb.ListLedgerResponse(
            rows=[render.ledger_row(row) for row in rows[:size]],
            next_page_token=str(rows[size - 1].id) if more else "",
            complete_since=render.timestamp(since) if since else None,
        )

    async def ListAudit(self, request: pb.ListAuditRequest, context: Any) -> pb.ListAuditResponse:
        """Read what administrators did."""
        await self._administrator(context, gives=False)
        size = render.page_size(request.page_size, default=100, most=1000)
        before = page_tokens.number(request.page_token)
        rows = await self._audit_log.list(request.account_id, limit=size + 1, before=before)
        more = len(rows) > size
        return pb.ListAuditResponse(
            entries=[render.audit_entry(row) for row in rows[:size]],
            next_page_token=str(rows[size - 1].id) if more else "",
        )

    async def CreateInvitation(self, request: pb.CreateInvitationRequest, context: Any) -> pb.CreateInvitationResponse:
        """Make an invitation."""
        actor = await self._administrator(context, gives=True)
        lasts_s = request.expires_in.ToMilliseconds() / 1000 if request.HasField("expires_in") else _WEEK_S
        if not 0 < lasts_s <= _YEAR_S:
            raise InvalidField("an invitation's lifetime must be longer than 0 and at most a year", param="expires_in")
        token = INVITATION_PREFIX + secrets.token_urlsafe(24)
        digest = keys.digest(self._pepper, token)
        expires_at = await self._sessions.invite(digest, expires_in_s=lasts_s, actor=actor)
        return pb.CreateInvitationResponse(invitation=token, expires_at=render.timestamp(expires_at))


def _report(request: pb.ReportSpendRequest | pb.DownloadSpendReportRequest) -> Report:
    whose = {"account_id": request.account_id, "team_id": request.team_id}
    return read_report(request.by, request.from_day, request.to_day, **whose)


def _only_disables(request: pb.UpdateAccountRequest) -> bool:
    """Return whether all that is asked for is to disable the account; a field that is new here counts as giving."""
    return request.disabled and {field.name for field, _ in request.ListFields()} <= {"account_id", "disabled"}


def _check_self(request: pb.UpdateAccountRequest) -> None:
    """Raise InvalidField for what an administrator may not do to their own account: nobody might be left to undo it."""
    if request.disabled:
        raise InvalidField("you cannot disable your own account; ask another administrator", param="disabled")
    if request.role not in (account_pb2.ROLE_UNSPECIFIED, account_pb2.ROLE_ADMIN):
        raise InvalidField("you cannot take your own role away; ask another administrator", param="role")


def _changes(request: pb.UpdateAccountRequest, record: AccountRecord) -> dict[str, object]:
    changes: dict[str, object] = {}
    role = record.role
    if request.role != account_pb2.ROLE_UNSPECIFIED:
        role = render.ROLE_NAMES[request.role]
        changes["role"] = role
    unlimited = request.unlimited if request.HasField("unlimited") else record.unlimited
    if unlimited and role != "service":
        raise InvalidField("only service accounts can be unlimited", param="unlimited")
    if request.HasField("unlimited"):
        changes["unlimited"] = unlimited
    if priority := render.read_priority(request.priority):
        changes["priority"] = priority
    if request.HasField("email"):
        changes["email"] = render.read_email(request.email) if request.email else None
    if request.HasField("name"):
        changes["name"] = render.read_name(request.name)
    return changes | render.read_limit_changes(request.limits, request.no_limit, role=role)


def _token(record: AccountRecord) -> str:
    return page_tokens.written([record.created_at, record.id])


def _place(token: str) -> tuple[datetime, str] | None:
    place = page_tokens.read(token)
    if place is None:
        return None
    try:
        at, account_id = place
        return datetime.fromisoformat(at), str(account_id)
    except (TypeError, ValueError):
        raise page_tokens.unknown() from None
