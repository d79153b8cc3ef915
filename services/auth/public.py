"""The server of the public services: callers bring keys or sessions, not the service token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from services.auth.adapters.audit import AuditLog
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
from services.auth.adapters.rules import Rules
from services.auth.adapters.second_factors import SecondFactors
from services.auth.adapters.sessions import Sessions
from services.auth.adapters.spend import Spend
from services.auth.adapters.teams import Teams
from services.auth.adapters.usage import Usage
from services.auth.admin_servicer import AdminServicer
from services.auth.budget_servicer import BudgetServicer
from services.auth.callers import Callers
from services.auth.domain.passwords import Passwords
from services.auth.logged_requests_servicer import LoggedRequestsServicer
from services.auth.logins import Logins
from services.auth.oidc_logins import OidcLogins
from services.auth.oidc_servicer import OidcServicer
from services.auth.own_limits import OwnLimits
from services.auth.password_resets import PasswordResets
from services.auth.provider_key_servicer import ProviderKeyServicer
from services.auth.session_tokens import SessionTokens
from services.auth.team_servicer import TeamServicer
from services.common.rereading import rereading
from services.common.rpc.limited import limited
from services.common.rpc.server import Server
from services.common.rpc.tls import Tls
from services.common.signing import Secrets


@dataclass(frozen=True, kw_only=True)
class PublicServices:
    """The services of moa.account.v1, over one database.

    Args:
        pepper: What keys, passwords' links and second factors are digested with.
        signup: Who may make an account.
        mails: Whether mail is sent at all.
        public_url: Where people reach the console.
        check_url: Raises for an address that webhooks may not have.
        seals: Whether the content of requests can be kept: there is a key for it.
        fresh_s: For how long a router uses a key without asking.
    """

    postgres: Postgres
    pepper: bytes
    signup: SignUpMode
    first_login: FirstLogin
    offered: Offered
    check_url: Callable[..., object]
    secrets: Secrets
    mailer: Mailer
    mails: bool
    public_url: str
    oidc: OidcLogins | None
    oidc_name: str
    request_log: RequestLog
    seals: bool
    provider_keys: ProviderKeys
    callers: Callers
    spend: Spend
    fresh_s: float

    def server(self, tls: Tls | None) -> Server:
        """Return a server of them, not started."""
        server = Server(service_token=None, around=limited, tls=tls)
        grpc = server.grpc
        passwords = Passwords()
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(rereading(self._account(passwords)), grpc)
        oidc_service_pb2_grpc.add_OidcServiceServicer_to_server(rereading(self._oidc()), grpc)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(rereading(self._admin(passwords)), grpc)
        team_service_pb2_grpc.add_TeamServiceServicer_to_server(rereading(self._team()), grpc)
        request_log_service_pb2_grpc.add_RequestLogServiceServicer_to_server(rereading(self._logged_requests()), grpc)
        budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(rereading(self._budget()), grpc)
        provider_key_service_pb2_grpc.add_ProviderKeyServiceServicer_to_server(self._provider_key(), grpc)
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

    def _account(self, passwords: Passwords) -> AccountServicer:
        sessions = Sessions(self.postgres)
        resets = PasswordResets(
            self.postgres,
            self.mailer,
            passwords,
            pepper=self.pepper,
            public_url=self.public_url,
            mails=self.mails,
        )
        return AccountServicer(
            accounts=Accounts(self.postgres),
            keys_kept=Keys(self.postgres),
            sessions=sessions,
            usage=Usage(self.postgres),
            spend=self.spend,
            callers=self.callers,
            passwords=passwords,
            pepper=self.pepper,
            signup=self.signup,
            first_login=self.first_login,
            resets=resets,
            logins=Logins(self.postgres, pepper=self.pepper),
            second_factors=SecondFactors(self.postgres, pepper=self.pepper),
            session_tokens=SessionTokens(sessions, pepper=self.pepper),
            oidc=self.oidc,
            limits=OwnLimits(self.postgres),
            fresh_s=self.fresh_s,
        )

    def _oidc(self) -> OidcServicer:
        sessions = Sessions(self.postgres)
        return OidcServicer(
            oidc=self.oidc,
            name=self.oidc_name,
            identities=Identities(self.postgres, pepper=self.pepper),
            accounts=Accounts(self.postgres),
            callers=self.callers,
            logins=Logins(self.postgres, pepper=self.pepper),
            second_factors=SecondFactors(self.postgres, pepper=self.pepper),
            session_tokens=SessionTokens(sessions, pepper=self.pepper),
            sessions=sessions,
            signup=self.signup,
            mails=self.mails,
        )

    def _admin(self, passwords: Passwords) -> AdminServicer:
        return AdminServicer(
            accounts=Accounts(self.postgres),
            rules=Rules(self.postgres),
            audit_log=AuditLog(self.postgres),
            keys_kept=Keys(self.postgres),
            sessions=Sessions(self.postgres),
            usage=Usage(self.postgres),
            spend=self.spend,
            callers=self.callers,
            passwords=passwords,
            pepper=self.pepper,
            offered=self.offered,
            second_factors=SecondFactors(self.postgres, pepper=self.pepper),
            identities=Identities(self.postgres, pepper=self.pepper),
        )

    def _team(self) -> TeamServicer:
        return TeamServicer(
            teams=Teams(self.postgres),
            accounts=Accounts(self.postgres),
            keys_kept=Keys(self.postgres),
            callers=self.callers,
            pepper=self.pepper,
            check_url=self.check_url,
            secrets=self.secrets,
            seals=self.seals,
            paces=PacesKept(self.postgres),
            offered=self.offered,
        )

    def _logged_requests(self) -> LoggedRequestsServicer:
        return LoggedRequestsServicer(
            log=self.request_log,
            accounts=Accounts(self.postgres),
            keys_kept=Keys(self.postgres),
            callers=self.callers,
        )

    def _budget(self) -> BudgetServicer:
        return BudgetServicer(
            budgets=Budgets(self.postgres),
            teams=Teams(self.postgres),
            accounts=Accounts(self.postgres),
            keys_kept=Keys(self.postgres),
            callers=self.callers,
            check_url=self.check_url,
            secrets=self.secrets,
            paces=PacesKept(self.postgres),
            offered=self.offered,
        )

    def _provider_key(self) -> ProviderKeyServicer:
        return ProviderKeyServicer(
            provider_keys=self.provider_keys,
            offered=self.offered,
            accounts=Accounts(self.postgres),
            keys_kept=Keys(self.postgres),
            callers=self.callers,
        )
