"""The server of the public services: callers bring keys or sessions, not the service token."""

from __future__ import annotations

from collections.abc import Callable

from moa.account.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_service_pb2,
    admin_service_pb2_grpc,
    budget_service_pb2,
    budget_service_pb2_grpc,
    oidc_service_pb2,
    oidc_service_pb2_grpc,
    provider_key_service_pb2,
    provider_key_service_pb2_grpc,
    request_log_service_pb2,
    request_log_service_pb2_grpc,
    team_service_pb2,
    team_service_pb2_grpc,
)
from services.auth.account_servicer import AccountServicer, SignUpMode
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.budgets import Budgets
from services.auth.adapters.first import FirstLogin
from services.auth.adapters.identities import Identities
from services.auth.adapters.keys import Keys
from services.auth.adapters.mail import Mailer
from services.auth.adapters.offered import Offered
from services.auth.adapters.paces import PacesKept
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.provider_keys import ProviderKeys
from services.auth.adapters.request_log import RequestLog
from services.auth.adapters.second_factors import SecondFactors
from services.auth.adapters.sessions import Sessions
from services.auth.adapters.spend import Spend
from services.auth.adapters.teams import Teams
from services.auth.adapters.usage import Usage
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.admin_servicer import AdminServicer
from services.auth.budget_servicer import BudgetServicer
from services.auth.callers import Callers
from services.auth.domain.passwords import Passwords
from services.auth.logged_requests_servicer import LoggedRequestsServicer
from services.auth.logins import Logins
from services.auth.oidc_logins import OidcLogins
from services.auth.oidc_servicer import OidcServicer
from services.auth.password_resets import PasswordResets
from services.auth.provider_key_servicer import ProviderKeyServicer
from services.auth.session_tokens import SessionTokens
from services.auth.team_servicer import TeamServicer
from services.common.rpc.limited import limited
from services.common.rpc.server import Server
from services.common.rpc.tls import Tls
from services.common.signing import Secrets


def public_server(
    postgres: Postgres,
    *,
    pepper: bytes,
    signup: SignUpMode,
    first_login: FirstLogin,
    offered: Offered,
    check_url: Callable[..., object],
    secrets: Secrets,
    mailer: Mailer,
    mails: bool,
    public_url: str,
    oidc: OidcLogins | None,
    oidc_name: str,
    request_log: RequestLog,
    seals: bool,
    tls: Tls | None,
    provider_keys: ProviderKeys,
    callers: Callers,
    spend: Spend,
    fresh_s: float,
) -> Server:
    """Return a server, not started, of moa.account.v1."""
    accounts, keys, sessions, usage = Accounts(postgres), Keys(postgres), Sessions(postgres), Usage(postgres)
    passwords = Passwords()
    logins, session_tokens = Logins(postgres, pepper=pepper), SessionTokens(sessions, pepper=pepper)
    second_factors, identities = SecondFactors(postgres, pepper=pepper), Identities(postgres, pepper=pepper)
    server = Server(service_token=None, around=limited, tls=tls)
    account_service_pb2_grpc.add_AccountServiceServicer_to_server(
        AccountServicer(
            postgres=postgres,
            accounts=accounts,
            keys_kept=keys,
            sessions=sessions,
            usage=usage,
            spend=spend,
            verified_keys=VerifiedKeys(postgres),
            callers=callers,
            passwords=passwords,
            pepper=pepper,
            signup=signup,
            first_login=first_login,
            resets=PasswordResets(postgres, mailer, passwords, pepper=pepper, public_url=public_url, mails=mails),
            logins=logins,
            second_factors=second_factors,
            session_tokens=session_tokens,
            oidc=oidc,
            paces=PacesKept(postgres),
            fresh_s=fresh_s,
        ),
        server.grpc,
    )
    oidc_service_pb2_grpc.add_OidcServiceServicer_to_server(
        OidcServicer(
            oidc=oidc,
            name=oidc_name,
            identities=identities,
            accounts=accounts,
            callers=callers,
            logins=logins,
            second_factors=second_factors,
            session_tokens=session_tokens,
            sessions=sessions,
            signup=signup,
            mails=mails,
        ),
        server.grpc,
    )
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(
        AdminServicer(
            accounts=accounts,
            keys_kept=keys,
            sessions=sessions,
            usage=usage,
            spend=spend,
            callers=callers,
            passwords=passwords,
            pepper=pepper,
            offered=offered,
            second_factors=second_factors,
            identities=identities,
        ),
        server.grpc,
    )
    team_service_pb2_grpc.add_TeamServiceServicer_to_server(
        TeamServicer(
            teams=Teams(postgres),
            accounts=accounts,
            keys_kept=keys,
            callers=callers,
            pepper=pepper,
            check_url=check_url,
            secrets=secrets,
            seals=seals,
            paces=PacesKept(postgres),
        ),
        server.grpc,
    )
    request_log_service_pb2_grpc.add_RequestLogServiceServicer_to_server(
        LoggedRequestsServicer(log=request_log, accounts=accounts, keys_kept=keys, callers=callers), server.grpc
    )
    budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(
        BudgetServicer(
            budgets=Budgets(postgres),
            teams=Teams(postgres),
            accounts=accounts,
            keys_kept=keys,
            callers=callers,
            check_url=check_url,
            secrets=secrets,
            paces=PacesKept(postgres),
        ),
        server.grpc,
    )
    provider_key_service_pb2_grpc.add_ProviderKeyServiceServicer_to_server(
        ProviderKeyServicer(
            provider_keys=provider_keys, offered=offered, accounts=accounts, keys_kept=keys, callers=callers
        ),
        server.grpc,
    )
    server.offer(
        account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name,
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
        team_service_pb2.DESCRIPTOR.services_by_name["TeamService"].full_name,
        budget_service_pb2.DESCRIPTOR.services_by_name["BudgetService"].full_name,
        oidc_service_pb2.DESCRIPTOR.services_by_name["OidcService"].full_name,
        request_log_service_pb2.DESCRIPTOR.services_by_name["RequestLogService"].full_name,
        provider_key_service_pb2.DESCRIPTOR.services_by_name["ProviderKeyService"].full_name,
    )
    return server
