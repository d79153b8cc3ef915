"""moa.account.v1.AccountService: an account's own affairs."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from google.api import httpbody_pb2

from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import account_service_pb2_grpc
from services.auth import render, spend_pages, usage_pages
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.first import FirstLogin
from services.auth.adapters.keys import Keys
from services.auth.adapters.second_factors import SecondFactors
from services.auth.adapters.sessions import Sessions
from services.auth.adapters.spend import Spend
from services.auth.adapters.usage import Usage
from services.auth.callers import Callers, address_of
from services.auth.cookies import keep_session
from services.auth.domain import keys, totp
from services.auth.domain.accounts import DEFAULT_LIMITS, LOCAL_ONLY
from services.auth.domain.passwords import Passwords
from services.auth.domain.powers import ACCOUNT
from services.auth.domain.spend import Report
from services.auth.domain.spend import read as read_report
from services.auth.lifetimes import read_lifetime, read_overlap
from services.auth.logins import Logins
from services.auth.oidc_logins import OidcLogins
from services.auth.own_limits import OwnLimits
from services.auth.password_resets import PasswordResets
from services.auth.session_tokens import SessionTokens
from services.common.errors import Conflict, InvalidField, PermissionDenied, Unauthenticated

SignUpMode = Literal["open", "invite", "closed"]
_WRONG_LOGIN = "the email or the password is wrong"


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """Answers account holders.

    Args:
        pepper: What keys and tokens are digested with.
        signup: Who may sign up.
        first_login: Lets the first administrator in.
        fresh_s: How long routers go on with a key as they know it.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        keys_kept: Keys,
        sessions: Sessions,
        usage: Usage,
        spend: Spend,
        callers: Callers,
        passwords: Passwords,
        pepper: bytes,
        signup: SignUpMode,
        first_login: FirstLogin,
        resets: PasswordResets,
        logins: Logins,
        second_factors: SecondFactors,
        session_tokens: SessionTokens,
        oidc: OidcLogins | None,
        limits: OwnLimits,
        fresh_s: float,
    ) -> None:
        self._fresh_s = fresh_s
        self._limits = limits
        self._accounts = accounts
        self._keys = keys_kept
        self._sessions = sessions
        self._usage = usage
        self._spend = spend
        self._callers = callers
        self._passwords = passwords
        self._pepper = pepper
        self._signup = signup
        self._first_login = first_login
        self._resets = resets
        self._logins = logins
        self._session_tokens = session_tokens
        self._oidc = oidc
        self._second_factors = second_factors

    async def SignUp(self, request: pb.SignUpRequest, context: Any) -> pb.SignUpResponse:
        """Create an account and a session."""
        address = address_of(context)
        await self._logins.arrive(address)
        if self._signup == "closed":
            raise PermissionDenied("sign-up is closed; ask an administrator for an account")
        if self._signup == "invite" and not request.invitation:
            raise PermissionDenied("sign-up needs an invitation; ask an administrator for one")
        is_open = self._signup == "open"
        if is_open:
            await self._logins.check_sign_up(address)
        email, name = render.read_email(request.email), render.read_name(request.name)
        password_hash = await self._passwords.hash(request.password)
        try:
            account_id = await self._accounts.create(
                role="user",
                limits=DEFAULT_LIMITS,
                rules=[LOCAL_ONLY],
                name=name,
                email=email,
                password_hash=password_hash,
                invitation=keys.digest(self._pepper, request.invitation) if request.invitation else None,
                is_open=is_open,
            )
        except Conflict:
            if is_open:
                await self._logins.refused_sign_up(address)
            raise
        token, expires_at = await self._session_tokens.begin(account_id)
        account = render.account(await self._accounts.get(account_id))
        told = await keep_session(context, token)
        return pb.SignUpResponse(account=account, session_token=told, expires_at=expires_at)

    async def SetUp(self, request: pb.SetUpRequest, context: Any) -> pb.SetUpResponse:
        """Return the first administrator an email and a password, and begin a session."""
        await self._logins.arrive(address_of(context))
        self._first_login.check(request.setup_token)
        email = render.read_email(request.email)
        account_id = await self._first_login.claim(email, await self._passwords.hash(request.password))
        token, expires_at = await self._session_tokens.begin(account_id)
        account = render.account(await self._accounts.get(account_id))
        told = await keep_session(context, token)
        return pb.SetUpResponse(session_token=told, expires_at=expires_at, account=account)

    async def LogIn(self, request: pb.LogInRequest, context: Any) -> pb.LogInResponse:
        """Begin a session."""
        email = request.email.strip().lower()[:254]
        address = address_of(context)
        await self._logins.arrive(address)
        await self._logins.check(email, address)
        found = await self._accounts.password_of(email)
        if not await self._passwords.verify(found[1] if found else None, request.password) or found is None:
            await self._logins.wrong(email)
            raise Unauthenticated(_WRONG_LOGIN)
        if await self._second_factors.needed(found[0]):
            if not request.totp_code:
                raise Unauthenticated("a second factor is needed; send your authenticator's code as `totp_code`")
            if not await self._second_factors.check(found[0], request.totp_code):
                await self._logins.wrong(email)
                raise Unauthenticated("the code is not correct; send the one that your authenticator shows now")
        await self._logins.right(email, address)
        token, expires_at = await self._session_tokens.begin(found[0], address, by="password")
        account = render.account(await self._accounts.get(found[0]))
        told = await keep_session(context, token)
        return pb.LogInResponse(session_token=told, expires_at=expires_at, account=account)

    async def LogOut(self, request: pb.LogOutRequest, context: Any) -> pb.LogOutResponse:
        """End the session."""
        ended = pb.LogOutResponse()
        caller = await self._callers.of(context)
        if caller.session is not None:
            sealed = await self._sessions.end(caller.session)
            if sealed is not None and self._oidc is not None:
                ended.end_session_url = await self._oidc.end_session_url(caller.session, sealed)
        await keep_session(context, "")
        return ended

    async def AskPasswordReset(self, request: pb.AskPasswordResetRequest, context: Any) -> pb.AskPasswordResetResponse:
        """Mail a link to somebody who forgot a password."""
        await self._logins.arrive(address_of(context))
        await self._resets.ask(render.read_email(request.email))
        return pb.AskPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Any) -> pb.ResetPasswordResponse:
        """Set a password by a link."""
        await self._logins.arrive(address_of(context))
        await self._resets.use(request.token, request.password)
        return pb.ResetPasswordResponse()

    async def _logged_in(self, context: Any) -> tuple[str, bytes]:
        """Return the account and the session of somebody who is logged in. Raises PermissionDenied for keys."""
        caller = await self._callers.of(context)
        if caller.session is None:
            raise PermissionDenied("keys manage no log-ins; log in")
        return caller.account_id, caller.session

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        """List the account's sessions."""
        account_id, session = await self._logged_in(context)
        return pb.ListSessionsResponse(
            sessions=[
                pb.Session(
                    session_id=one.id,
                    created_at=render.timestamp(one.created_at),
                    expires_at=render.timestamp(one.expires_at),
                    address=one.address,
                    current=one.digest == session,
                )
                for one in await self._sessions.list(account_id)
            ]
        )

    async def EndSession(self, request: pb.EndSessionRequest, context: Any) -> pb.EndSessionResponse:
        """End one of the account's sessions."""
        account_id, _ = await self._logged_in(context)
        await self._sessions.end_one(account_id, request.session_id)
        return pb.EndSessionResponse()

    async def BeginSecondFactor(
        self, request: pb.BeginSecondFactorRequest, context: Any
    ) -> pb.BeginSecondFactorResponse:
        """Make the secret of a second factor."""
        account_id, _ = await self._logged_in(context)
        secret = await self._second_factors.begin(account_id)
        name = (await self._accounts.get(account_id)).email or account_id
        return pb.BeginSecondFactorResponse(secret=totp.written(secret), uri=totp.address(secret, name))

    async def ConfirmSecondFactor(
        self, request: pb.ConfirmSecondFactorRequest, context: Any
    ) -> pb.ConfirmSecondFactorResponse:
        """Have log-ins take a code."""
        account_id, session = await self._logged_in(context)
        await self._logins.check(account_id, address_of(context))
        await self._second_factors.confirm(account_id, request.code)
        await self._sessions.end_others(account_id, session)
        return pb.ConfirmSecondFactorResponse()

    async def RemoveSecondFactor(
        self, request: pb.RemoveSecondFactorRequest, context: Any
    ) -> pb.RemoveSecondFactorResponse:
        """Take the second factor away."""
        account_id, _ = await self._logged_in(context)
        await self._logins.check(account_id, address_of(context))
        if not await self._second_factors.check(account_id, request.code):
            raise InvalidField("the code is not correct; send the one that your authenticator shows now", param="code")
        await self._second_factors.remove(account_id, actor=account_id)
        return pb.RemoveSecondFactorResponse()

    async def GetMe(self, request: pb.GetMeRequest, context: Any) -> pb.GetMeResponse:
        """Describe the account."""
        caller = await self._callers.of(context)
        return pb.GetMeResponse(account=render.account(await self._accounts.get(caller.account_id)))

    async def UpdateMe(self, request: pb.UpdateMeRequest, context: Any) -> pb.UpdateMeResponse:
        """Change name, password, or whether responses are stored."""
        caller = await self._callers.of(context)
        caller.check_manages(ACCOUNT)
        if request.HasField("name"):
            await self._accounts.rename(caller.account_id, render.read_name(request.name))
        if request.HasField("stores_responses") or request.by_default:
            is_new = await self._accounts.set_storing(caller.account_id, render.read_storing(request))
            # Who relies on it asks at once: by then no router may go by what it knew before.
            await asyncio.sleep(self._fresh_s if is_new else 0)
        if request.HasField("password"):
            record = await self._accounts.get(caller.account_id)
            who, address = record.email or record.id, address_of(context)
            await self._logins.check(who, address)
            found = await self._accounts.password_of(record.email) if record.email else None
            if not await self._passwords.verify(found[1] if found else None, request.old_password):
                await self._logins.wrong(who)
                raise InvalidField("the old password is not correct", param="old_password")
            await self._logins.right(who, address)
            await self._accounts.set_password(
                caller.account_id, await self._passwords.hash(request.password), keep_session=caller.session
            )
        return pb.UpdateMeResponse(account=render.account(await self._accounts.get(caller.account_id)))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        """List the account's keys."""
        caller = await self._callers.of(context)
        return pb.ListKeysResponse(keys=[render.key(one) for one in await self._keys.list(caller.account_id)])

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        """Make a key."""
        caller = await self._callers.of(context)
        caller.check_manages(ACCOUNT)
        style = request.style or "moa"
        expires_in_s = read_lifetime(request.expires_in) if request.HasField("expires_in") else None
        key = keys.make(self._pepper, style)
        record = await self._keys.create(
            caller.account_id,
            key,
            name=render.read_name(request.name),
            expires_in_s=expires_in_s,
            scopes=render.read_rules(request.scopes, "scopes"),
            limits=render.read_key_limits(request),
            manages=render.read_manages(request.manages),
            maker=caller.key_id,
        )
        return pb.CreateKeyResponse(key=render.key(record), api_key=key.secret)

    async def RenameKey(self, request: pb.RenameKeyRequest, context: Any) -> pb.RenameKeyResponse:
        """Rename a key."""
        caller = await self._callers.of(context)
        caller.check_manages(ACCOUNT)
        record = await self._keys.update(
            caller.account_id, request.key_id, maker=caller.key_id, name=render.read_name(request.name)
        )
        return pb.RenameKeyResponse(key=render.key(record))

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Any) -> pb.UpdateKeyResponse:
        """Change a key's name or priority."""
        caller = await self._callers.of(context)
        caller.check_manages(ACCOUNT)
        changes = render.read_key_changes(request.limits, request.no_limit)
        if request.HasField("name"):
            changes["name"] = render.read_name(request.name)
        if request.HasField("priority"):
            changes["priority"] = render.read_priority(request.priority)
        return pb.UpdateKeyResponse(
            key=render.key(await self._keys.update(caller.account_id, request.key_id, maker=caller.key_id, **changes))
        )

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        """Revoke a key."""
        caller = await self._callers.of(context)
        caller.check_manages(ACCOUNT)
        return pb.RevokeKeyResponse(key=render.key(await self._keys.revoke(caller.account_id, request.key_id)))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Any) -> pb.RotateKeyResponse:
        """Replace a key."""
        caller = await self._callers.of(context)
        caller.check_manages(ACCOUNT)
        owned = {record.id: record for record in await self._keys.list(caller.account_id)}
        old = owned.get(request.key_id)
        style = old.prefix.partition("-")[0] if old else "moa"
        key = keys.make(self._pepper, style)
        record = await self._keys.rotate(
            caller.account_id,
            request.key_id,
            key,
            maker=caller.key_id,
            overlap_s=read_overlap(request.overlap) if request.HasField("overlap") else None,
        )
        return pb.RotateKeyResponse(key=render.key(record), api_key=key.secret)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        """Tell what was used."""
        caller = await self._callers.of(context)
        rows, next_page = await usage_pages.page(self._usage, caller.account_id, request)
        return pb.GetUsageResponse(rows=rows, next_page_token=next_page)

    async def GetSpend(self, request: pb.GetSpendRequest, context: Any) -> pb.GetSpendResponse:
        """Report what the account spent, or its team."""
        report = await self._report(request, context)
        return await spend_pages.page(self._spend, report, request, pb.GetSpendResponse)

    async def DownloadSpend(self, request: pb.DownloadSpendRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Report it as a file."""
        spend_pages.complete(request, context, "/moa.account.v1.AccountService/DownloadSpend")
        return await spend_pages.file(self._spend, await self._report(request, context))

    async def _report(self, request: pb.GetSpendRequest | pb.DownloadSpendRequest, context: Any) -> Report:
        caller = await self._callers.of(context)
        record = await self._accounts.get(caller.account_id)
        if request.of_team and (record.team_id is None or record.team_role != "owner"):
            raise PermissionDenied("only an owner of a team may see what it spent", param="of_team")
        if request.of_team:
            # What others spent is none of its account's affairs, which any key reads.
            caller.check_manages(ACCOUNT)
        whose = {"team_id": record.team_id or ""} if request.of_team else {"account_id": record.id}
        return read_report(request.by, request.from_day, request.to_day, **whose)

    async def GetLimits(self, request: pb.GetLimitsRequest, context: Any) -> pb.GetLimitsResponse:
        """Tell the account's limits, what is left of today, and the limits of the key that asks."""
        caller = await self._callers.of(context)
        return await self._limits.told(caller.account_id, caller.key_id)
