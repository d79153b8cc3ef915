"""One replica of the auth service, put together: what `__main__` runs and tests start."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from moa.idempotency.v1 import idempotency_service_pb2, idempotency_service_pb2_grpc
from moa.operator.v1 import operator_store_service_pb2, operator_store_service_pb2_grpc
from moa.quota.v1 import quota_service_pb2, quota_service_pb2_grpc
from moa.requestlog.v1 import request_log_service_pb2, request_log_service_pb2_grpc
from moa.response.v1 import (
    conversation_store_service_pb2,
    conversation_store_service_pb2_grpc,
    response_store_service_pb2,
    response_store_service_pb2_grpc,
)
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.answers import Answers
from services.auth.adapters.cached import CachedVerifiedKeys
from services.auth.adapters.carried import CarriedBlocks
from services.auth.adapters.checker import Checker
from services.auth.adapters.first import FirstLogin
from services.auth.adapters.group_rules import GroupRules, GroupRulesError
from services.auth.adapters.identities import Identities
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.mail import Mailer
from services.auth.adapters.offered import Offered
from services.auth.adapters.oidc_issuer import Issuer
from services.auth.adapters.paces import PacesKept
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.provider_keys import ProviderKeys
from services.auth.adapters.request_log import RequestLog
from services.auth.adapters.request_log_exports import Exports
from services.auth.adapters.request_log_resealing import Resealing
from services.auth.adapters.request_log_sweep import RequestLogSweep
from services.auth.adapters.retention import Retention
from services.auth.adapters.sessions import Sessions
from services.auth.adapters.spend import Spend, SpendReplica
from services.auth.adapters.traffic import Traffic
from services.auth.adapters.tries import Tries, tidy
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.adapters.warnings import Warnings
from services.auth.arrivals import Arrivals
from services.auth.backlogs import Backlogs
from services.auth.callers import Callers
from services.auth.conversation_servicer import ConversationStoreServicer
from services.auth.domain.carrying import CarriedCredits
from services.auth.domain.ledger import LeaseIds
from services.auth.domain.paces import Paces
from services.auth.domain.quota import Quota
from services.auth.idempotency_servicer import IdempotencyServicer
from services.auth.log_exporter import LogExporter
from services.auth.oidc_logins import CALLBACK, OidcLogins
from services.auth.operator_store_servicer import OperatorStoreServicer
from services.auth.public import PublicServices
from services.auth.quota_servicer import QuotaServicer
from services.auth.request_log_servicer import RequestLogServicer, Told
from services.auth.response_servicer import ResponseStoreServicer, book_left
from services.auth.settings import AuthSettings
from services.auth.storing import Kept, responses_of, storing_of
from services.auth.sweeper import Sweeper
from services.auth.warner import Warner
from services.common import otlp
from services.common.content_sealing import ContentKeys
from services.common.credential import credential_of
from services.common.egress import Egress
from services.common.rereading import rereading
from services.common.rpc.server import Server
from services.common.rpc.tls import Tls, tls_of
from services.common.signing import Secrets


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A replica that serves."""

    postgres: Postgres
    quota: Quota
    port: int
    public_port: int


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What several services of a replica stand on."""

    postgres: Postgres
    ledger: Ledger
    quota: Quota
    sessions: Sessions
    paces: Paces
    paces_kept: PacesKept
    arrivals: Arrivals
    callers: Callers
    answers: Answers
    stored: Kept
    content_keys: ContentKeys
    provider_keys: ProviderKeys
    traffic: Traffic
    exports: Exports | None
    request_log: RequestLog
    egress: Egress
    secrets: Secrets
    mailer: Mailer


@asynccontextmanager
async def serving(config: AuthSettings) -> AsyncIterator[Replica]:
    """Serve a migrated database while the context is open; at its end, drain, and return what was borrowed."""
    async with AsyncExitStack() as stack:
        parts, tls = await _parts(config, stack), tls_of(config)
        server = await _internal(config, parts, tls, stack)
        public = PublicServices(
            postgres=parts.postgres,
            pepper=_pepper(config),
            signup=config.signup,
            first_login=FirstLogin(
                parts.postgres, token=config.setup_token.get_secret_value(), until=config.setup_until
            ),
            offered=Offered(config.catalogue),
            mailer=parts.mailer,
            mails=bool(config.smtp_url.get_secret_value()),
            public_url=config.public_url,
            check_url=parts.egress.check,
            secrets=parts.secrets,
            oidc=_oidc(config, parts.postgres, stack),
            oidc_name=config.oidc_name,
            request_log=parts.request_log,
            seals=bool(parts.content_keys),
            spend=Spend(parts.postgres, await _spend_replica(config, stack)),
            provider_keys=parts.provider_keys,
            callers=parts.callers,
            fresh_s=config.fresh_s,
        ).server(tls.called_by("edge") if tls is not None else None)
        await _looked_after(config, parts, stack)
        public_port = await public.start(config.public_listen)
        stack.push_async_callback(public.stop, config.drain_s)
        port = await server.start(config.listen)
        stack.push_async_callback(server.stop, config.drain_s)
        yield Replica(postgres=parts.postgres, quota=parts.quota, port=port, public_port=public_port)


def _pepper(config: AuthSettings) -> bytes:
    return config.key_pepper.get_secret_value().encode()


def _grace_s(config: AuthSettings) -> float:
    """Return how long after its end a block still takes settlements."""
    return config.lease_s / 2


async def _parts(config: AuthSettings, stack: AsyncExitStack) -> _Parts:
    """Open what the services stand on."""
    pepper = _pepper(config)
    postgres = Postgres(config.database_url.get_secret_value(), wait_s=config.database_wait_s, pooled=config.is_pooled)
    await postgres.open()
    stack.push_async_callback(postgres.close)
    await postgres.look()
    verified_keys = await stack.enter_async_context(CachedVerifiedKeys(VerifiedKeys(postgres), config.session_url))
    ledger = Ledger(postgres, grace_s=_grace_s(config), alive_s=max(4.0, config.lease_s))
    quota = Quota(verified_keys, ledger, pepper=pepper, lease_s=config.lease_s, block_s=config.block_s)
    verified_keys.recalled = quota.recalled
    stack.push_async_callback(quota.pools.close)
    sessions, kept = Sessions(postgres), PacesKept(postgres)
    arrivals = Arrivals(kept, sessions, ttl_s=config.lease_s)
    wrong = Tries(postgres, pepper=pepper, kind="credential", tries=20, every_s=3)
    content_keys = ContentKeys(config.request_log_keys.get_secret_value())
    exports = _exports(config, postgres, stack)
    egress = Egress(config.egress_allow.split(","))
    stack.push_async_callback(egress.aclose)
    return _Parts(
        postgres=postgres,
        ledger=ledger,
        quota=quota,
        sessions=sessions,
        paces=Paces(verified_keys, kept, ttl_s=config.lease_s),
        paces_kept=kept,
        arrivals=arrivals,
        callers=Callers(quota, sessions, wrong, arrivals, pepper=pepper),
        answers=Answers(postgres, pepper=pepper, lease_s=config.idempotency_lease_s),
        stored=responses_of(config, postgres),
        content_keys=content_keys,
        provider_keys=ProviderKeys(postgres, content_keys),
        traffic=Traffic(postgres),
        exports=exports,
        request_log=RequestLog(postgres, content_keys, exports),
        egress=egress,
        secrets=Secrets(config.key_pepper.get_secret_value()),
        mailer=Mailer(config.smtp_url.get_secret_value(), config.mail_from),
    )


async def _internal(config: AuthSettings, parts: _Parts, tls: Tls | None, stack: AsyncExitStack) -> Server:
    """Return the server, not started, of what only other services call."""
    pepper, postgres = _pepper(config), parts.postgres
    server = Server(
        service_token=credential_of(config),
        connection_age_s=config.connection_age_s,
        tls=tls,
        database=lambda: not postgres.is_away,
    )
    guesses = Tries(postgres, pepper=pepper, kind="key", tries=30, every_s=1)
    carried = CarriedCredits(CarriedBlocks(postgres), parts.ledger, LeaseIds(pepper))
    quota = QuotaServicer(
        *(parts.quota, parts.sessions, parts.paces, guesses, parts.arrivals, carried),
        fresh_s=config.fresh_s,
        pepper=pepper,
        storing=storing_of(config),
    )
    quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(quota, server.grpc)
    idempotency_service_pb2_grpc.add_IdempotencyServiceServicer_to_server(
        rereading(IdempotencyServicer(parts.answers)), server.grpc
    )
    response_store_service_pb2_grpc.add_ResponseStoreServiceServicer_to_server(
        rereading(ResponseStoreServicer(parts.stored.responses, parts.stored.background, parts.quota)), server.grpc
    )
    conversation_store_service_pb2_grpc.add_ConversationStoreServiceServicer_to_server(
        rereading(ConversationStoreServicer(parts.stored.conversations)), server.grpc
    )
    operator = OperatorStoreServicer(
        postgres=postgres,
        provider_keys=parts.provider_keys,
        traffic=parts.traffic,
        accounts=Accounts(postgres),
        keys_kept=Keys(postgres),
        callers=parts.callers,
    )
    operator_store_service_pb2_grpc.add_OperatorStoreServiceServicer_to_server(rereading(operator), server.grpc)
    told = await _collector(stack)
    request_log_service_pb2_grpc.add_RequestLogServiceServicer_to_server(
        RequestLogServicer(parts.request_log, told=told), server.grpc
    )
    server.offer(
        conversation_store_service_pb2.DESCRIPTOR.services_by_name["ConversationStoreService"].full_name,
        response_store_service_pb2.DESCRIPTOR.services_by_name["ResponseStoreService"].full_name,
        quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"].full_name,
        idempotency_service_pb2.DESCRIPTOR.services_by_name["IdempotencyService"].full_name,
        operator_store_service_pb2.DESCRIPTOR.services_by_name["OperatorStoreService"].full_name,
        request_log_service_pb2.DESCRIPTOR.services_by_name["RequestLogService"].full_name,
    )
    return server


async def _looked_after(config: AuthSettings, parts: _Parts, stack: AsyncExitStack) -> None:
    """Begin what is done in the background."""
    postgres = parts.postgres
    tidies: dict[str, Callable[[], Awaitable[None]]] = {
        "paces": parts.paces_kept.tidy,
        "tries": partial(tidy, postgres),
        "answers": parts.answers.tidy,
        "responses": parts.stored.responses.tidy,
        "conversations": parts.stored.conversations.tidy,
        "traffic": parts.traffic.tidy,
        "background": partial(book_left, parts.stored.background, parts.quota),
    }
    if parts.exports is not None:
        tidies["exports"] = parts.exports.tidy
        await stack.enter_async_context(LogExporter(parts.exports, every_s=config.request_log_every_s))
    backlogs = [RequestLogSweep(postgres).tidy, Resealing(postgres, parts.content_keys).tidy]
    if config.ledger_retention_days is not None:
        retention = Retention(postgres, Checker(config.session_url), days=config.ledger_retention_days)
        stack.push_async_callback(retention.close)
        backlogs.append(retention.tidy)
    await stack.enter_async_context(Backlogs(backlogs))
    sweeper = Sweeper(
        parts.ledger,
        parts.quota.pools,
        tidies,
        every_s=config.lease_s / 20,
        rest_s=min(config.lease_s, config.block_s) / 2,
        patience_s=_grace_s(config),
    )
    await stack.enter_async_context(sweeper)
    await stack.enter_async_context(Warner(Warnings(postgres), parts.egress, parts.mailer, parts.secrets))


def _oidc(config: AuthSettings, postgres: Postgres, stack: AsyncExitStack) -> OidcLogins | None:
    """Return log-ins with the identity provider; None where none is set. Raises SystemExit for a bad file of groups."""
    if not config.oidc_issuer:
        return None
    place = urlsplit(config.oidc_issuer)
    host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
    # The operator named it: it may be inside.
    own = f"{host}:{place.port or (443 if place.scheme == 'https' else 80)}"
    egress = Egress([own, *config.egress_allow.split(",")])
    stack.push_async_callback(egress.aclose)
    pepper, home = config.key_pepper.get_secret_value().encode(), config.public_url.rstrip("/")
    try:
        rules = GroupRules(config.oidc_groups)
    except GroupRulesError as error:
        raise SystemExit(f"bad setting MOA_OIDC_GROUPS: {error}") from None
    issuer = Issuer(
        egress,
        issuer=config.oidc_issuer,
        client_id=config.oidc_client_id,
        client_secret=config.oidc_client_secret.get_secret_value(),
        redirect_uri=home + CALLBACK,
        home=home + "/",
        scopes=config.oidc_scopes,
        groups_claim=config.oidc_groups_claim,
    )
    return OidcLogins(
        issuer,
        Identities(postgres, pepper=pepper),
        rules,
        Tries(postgres, pepper=pepper, kind="oidc", tries=60, every_s=1),
        Tries(postgres, pepper=pepper, kind="oidc failure", tries=60, every_s=60),
        pepper=pepper,
        public_url=config.public_url,
        sign_up=config.oidc_signup,
        domains=[each.strip().lower() for each in config.oidc_domains.split(",") if each.strip()],
        by_email=config.oidc_link_by_email,
    )


async def _spend_replica(config: AuthSettings, stack: AsyncExitStack) -> SpendReplica | None:
    """Return the replica that the settings name; None where they name none."""
    url = config.database_replica_url.get_secret_value()
    if not url:
        return None
    # That it is away is told by who reads it: the database itself is not.
    postgres = Postgres(url, size=4, wait_s=config.database_wait_s, tells_time=False, at_once=False)
    await postgres.open()
    stack.push_async_callback(postgres.close)
    return SpendReplica(postgres, config.database_replica_lag_s)


def _exports(config: AuthSettings, postgres: Postgres, stack: AsyncExitStack) -> Exports | None:
    """Return what exports logged requests to the bucket that the settings name; None where they name none."""
    if not config.request_log_bucket:
        return None
    # botocore takes a third of the time in which the service starts.
    from services.auth.adapters.export_bucket import ExportBucket

    access_key, secret_key = (
        secret.get_secret_value() for secret in (config.request_log_access_key, config.request_log_secret_key)
    )
    bucket = ExportBucket(
        config.request_log_bucket,
        endpoint=config.request_log_endpoint,
        region=config.request_log_region,
        credential=(access_key, secret_key) if access_key else None,
    )
    stack.callback(bucket.close)
    return Exports(postgres, bucket, prefix=config.request_log_prefix)


async def _collector(stack: AsyncExitStack) -> Told | None:
    """Return what sends logged requests to the collector that the environment names; None where it names none.

    Raises SystemExit for a bad variable.
    """
    try:
        collector = otlp.read_logs(os.environ)
    except otlp.BadTracing as error:
        raise SystemExit(str(error)) from None
    if collector is None:
        return None
    # OpenTelemetry's messages are loaded where they are sent alone.
    from services.auth.adapters.otlp_logs import exporting

    return await stack.enter_async_context(exporting(collector))
