"""moa.account.v1.OidcService: log-ins with an identity provider, and the identities of accounts."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from google.api import httpbody_pb2

from moa.account.v1 import oidc_service_pb2 as pb
from moa.account.v1 import oidc_service_pb2_grpc
from services.auth import identity_messages, render
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.identities import Identities
from services.auth.adapters.second_factors import SecondFactors
from services.auth.adapters.sessions import Sessions
from services.auth.callers import Callers, address_of
from services.auth.cookies import keep_session
from services.auth.logins import Logins
from services.auth.oidc_logins import OidcLogins, Sent
from services.auth.session_tokens import SessionTokens
from services.common.errors import InvalidField, Malformed, NotFound, PermissionDenied, Unauthenticated
from services.common.rpc import rest

_MOST_PARAMETERS: Final = 50
RECENT_S: Final = 900
_NONE: Final = "this gateway has no identity provider to log in with; log in with a password"


class OidcServicer(oidc_service_pb2_grpc.OidcServiceServicer):
    """Answers browsers and pages.

    Args:
        oidc: None where no identity provider is set.
        name: What the provider is called.
        signup: Who may sign up.
        mails: Whether forgotten passwords are replaced by mail.
    """

    def __init__(
        self,
        *,
        oidc: OidcLogins | None,
        name: str,
        identities: Identities,
        accounts: Accounts,
        callers: Callers,
        logins: Logins,
        second_factors: SecondFactors,
        session_tokens: SessionTokens,
        sessions: Sessions,
        signup: str,
        mails: bool,
    ) -> None:
        self._kept_oidc = oidc
        self._name = name
        self._identities = identities
        self._accounts = accounts
        self._callers = callers
        self._logins = logins
        self._second_factors = second_factors
        self._session_tokens = session_tokens
        self._sessions = sessions
        self._signup = signup
        self._mails = mails

    @property
    def _oidc(self) -> OidcLogins:
        if self._kept_oidc is None:
            raise NotFound(_NONE)
        return self._kept_oidc

    async def GetLogInMethods(self, request: pb.GetLogInMethodsRequest, context: Any) -> pb.GetLogInMethodsResponse:
        """Tell how people log in."""
        methods = pb.GetLogInMethodsResponse(password=True, sign_up=self._signup, password_reset=self._mails)
        if self._kept_oidc is not None:
            methods.oidc.CopyFrom(pb.OidcMethod(name=self._name, start_url=self._kept_oidc.start_url))
        return methods

    async def StartOidc(self, request: pb.StartOidcRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Send a browser to the identity provider."""
        asked = _query(context)
        return_to = request.return_to if asked is None else asked.get("return_to", "")
        return await _sent(context, await self._oidc.begin(return_to, address_of(context)))

    async def FinishOidc(self, request: pb.FinishOidcRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Take a browser back."""
        given = _query(context)
        if given is None:
            given = {field.name: value for field, value in request.ListFields()}
        return await _sent(context, await self._oidc.finish(given, _cookies(context), address_of(context)))

    async def LogInByOidc(self, request: pb.LogInByOidcRequest, context: Any) -> pb.LogInByOidcResponse:
        """Begin a session."""
        address = address_of(context)
        arrival = await self._oidc.arrival(_cookies(context), address)
        account_id = await self._oidc.account_of(arrival)
        if (
            account_id is not None
            and not arrival.person.second_factor
            and await self._second_factors.needed(account_id)
        ):
            await self._check_second_factor(account_id, request.totp_code, address)
        entered = await self._oidc.enter(arrival, account_id)
        token, expires_at = await self._session_tokens.begin(
            entered, address, by="oidc", kept=lambda digest: self._oidc.sealed_token(digest, arrival.id_token)
        )
        account = render.account(await self._accounts.get(entered))
        told = await keep_session(context, token, also=[self._oidc.spent()])
        return pb.LogInByOidcResponse(session_token=told, expires_at=expires_at, account=account)

    async def _check_second_factor(self, account_id: str, code: str, address: str) -> None:
        if not code:
            raise Unauthenticated("a second factor is needed; send your authenticator's code as `totp_code`")
        await self._logins.check(account_id, address)
        if not await self._second_factors.check(account_id, code):
            await self._logins.wrong(account_id)
            await self._oidc.refused("second_factor_wrong", account_id)
            raise Unauthenticated("the code is not correct; send the one that your authenticator shows now")
        await self._logins.right(account_id, address)

    async def LinkIdentity(self, request: pb.LinkIdentityRequest, context: Any) -> pb.LinkIdentityResponse:
        """Link an identity."""
        account_id = await self._logged_in(context, recently=True)
        arrival = await self._oidc.arrival(_cookies(context), address_of(context))
        record = await self._identities.link(arrival, account_id)
        await context.send_initial_metadata([("set-cookie", self._oidc.spent())])
        return pb.LinkIdentityResponse(identity=identity_messages.linked(record))

    async def ListIdentities(self, request: pb.ListIdentitiesRequest, context: Any) -> pb.ListIdentitiesResponse:
        """List the account's identities."""
        account_id = await self._logged_in(context)
        return pb.ListIdentitiesResponse(
            identities=map(identity_messages.linked, await self._identities.list(account_id))
        )

    async def UnlinkIdentity(self, request: pb.UnlinkIdentityRequest, context: Any) -> pb.UnlinkIdentityResponse:
        """Take an identity away."""
        await self._identities.unlink(await self._logged_in(context), request.identity_id)
        return pb.UnlinkIdentityResponse()

    async def _logged_in(self, context: Any, *, recently: bool = False) -> str:
        """Return the account of somebody who is logged in. Raises PermissionDenied for keys.

        `recently`: for what opens the account for good. An old session, as one that was found, is Unauthenticated.
        """
        caller = await self._callers.of(context)
        if caller.session is None:
            raise PermissionDenied("keys manage no log-ins; log in")
        if recently and not await self._sessions.is_recent(caller.session, RECENT_S):
            raise Unauthenticated("log in once more, and link the identity within fifteen minutes")
        return caller.account_id


async def _sent(context: Any, sent: Sent) -> httpbody_pb2.HttpBody:
    """Send a browser elsewhere; what is asked of it there does not tell where it comes from."""
    headers = [
        ("x-moa-status", "302"),
        ("location", sent.location),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        *(("set-cookie", cookie) for cookie in sent.cookies),
    ]
    await context.send_initial_metadata(headers)
    return httpbody_pb2.HttpBody(content_type="text/plain; charset=utf-8", data=b"")


def _query(context: Any) -> dict[str, str] | None:
    """Return what a REST caller's query says, the first of each name; None for a gRPC caller.

    Identity providers add parameters of their own. Raises Malformed, InvalidField for a parameter that is given twice.
    """
    original = dict(context.invocation_metadata() or ()).get(rest.ORIGINAL_PATH)
    if not isinstance(original, str):
        return None
    try:
        pairs = parse_qsl(
            original.partition("?")[2], keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise Malformed("the query cannot be read") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidField(f"{name[:64]} is given twice", param=name[:64])
        found[name] = value
    return found


def _cookies(context: Any) -> dict[str, str]:
    """Return a browser's cookies by name; of two of one name the first, which is of the closer path."""
    found: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if key == "cookie" and isinstance(value, str):
            for pair in value.split(";"):
                name, _, text = pair.strip().partition("=")
                found.setdefault(name, text)
    return found
