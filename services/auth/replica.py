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
from services.auth.public import public_server
from services.auth.quota_servicer import QuotaServicer
from services.auth.request_log_servicer import RequestLogServicer, Told
from services.auth.response_servicer import ResponseStoreServicer, book_left
from services.auth.settings import AuthSettings
from services.auth.storing import responses_of, storing_of
from services.auth.sweeper import Sweeper
from services.auth.warner import Warner
from services.common import otlp
from services.common.content_sealing import ContentKeys
from services.common.credential import credential_of
from services.common.egress import Egress
from services.common.rpc.server import Server
from services.common.rpc.tls import tls_of
from services.common.signing import Secrets


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A replica that serves."""

    postgres: Postgres
    quota: Quota
    port: int
    public_port: int


@asynccontextmanager
async def serving(config: AuthSettings) -> AsyncIterator[Replica]:
    """Serve a migrated database while the context is open; at its end, drain, and return what was borrowed."""
    url, pepper = config.database_url.get_secret_value(), config.key_pepper.get_secret_value().encode()
    grace_s = config.lease_s / 2  # how long after its end a block still takes settlements
    async with AsyncExitStack() as stack:
        postgres = Postgres(url, wait_s=config.database_wait_s, pooled=config.is_pooled)
        await postgres.open()
        stack.push_async_callback(postgres.close)
        verified_keys = await stack.enter_async_context(CachedVerifiedKeys(VerifiedKeys(postgres), config.session_url))
        ledger = Ledger(postgres, grace_s=grace_s, alive_s=max(4.0, config.lease_s))
        quota = Quota(verified_keys, ledger, pepper=pepper, lease_s=config.lease_s, block_s=config.block_s)
        stack.push_async_callback(quota.pools.close)
        tls = tls_of(config)
        token = credential_of(config)
        server = Server(service_token=token, connection_age_s=config.connection_age_s, tls=tls)
        kept = PacesKept(postgres)
        paces = Paces(verified_keys, kept, ttl_s=config.lease_s)
        arrivals = Arrivals(kept, Sessions(postgres), ttl_s=config.lease_s)
        guesses = Tries(postgres, pepper=pepper, kind="key", tries=30, every_s=1)
        carried = CarriedCredits(CarriedBlocks(postgres), ledger, LeaseIds(pepper))
        servicer = QuotaServicer(
            *(quota, Sessions(postgres), paces, guesses, arrivals, carried),
            fresh_s=config.fresh_s,
            pepper=pepper,
            storing=storing_of(config),
        )
        quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(servicer, server.grpc)
        answers = Answers(postgres, pepper=pepper, lease_s=config.idempotency_lease_s)
        idempotency_service_pb2_grpc.add_IdempotencyServiceServicer_to_server(IdempotencyServicer(answers), server.grpc)
        responses, background, conversations = responses_of(config, postgres)
        response_store_service_pb2_grpc.add_ResponseStoreServiceServicer_to_server(
            ResponseStoreServicer(responses, background, quota), server.grpc
        )
        conversation_store_service_pb2_grpc.add_ConversationStoreServiceServicer_to_server(
            ConversationStoreServicer(conversations), server.grpc
        )
        server.offer(
            conversation_store_service_pb2.DESCRIPTOR.services_by_name["ConversationStoreService"].full_name,
            response_store_service_pb2.DESCRIPTOR.services_by_name["ResponseStoreService"].full_name,
            quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"].full_name,
            idempotency_service_pb2.DESCRIPTOR.services_by_name["IdempotencyService"].full_name,
        )
        content_keys = ContentKeys(config.request_log_keys.get_secret_value())
        provider_keys, traffic = ProviderKeys(postgres, content_keys), Traffic(postgres)
        wrong = Tries(postgres, pepper=pepper, kind="credential", tries=20, every_s=3)
        callers = Callers(quota, Sessions(postgres), wrong, arrivals, pepper=pepper)
        operator_store_service_pb2_grpc.add_OperatorStoreServiceServicer_to_server(
            OperatorStoreServicer(
                postgres=postgres,
                provider_keys=provider_keys,
                traffic=traffic,
                accounts=Accounts(postgres),
                keys_kept=Keys(postgres),
                callers=callers,
            ),
            server.grpc,
        )
        server.offer(operator_store_service_pb2.DESCRIPTOR.services_by_name["OperatorStoreService"].full_name)
        exports = _exports(config, postgres, stack)
        request_log = RequestLog(postgres, content_keys, exports)
        collector = await _collector(stack)
        request_log_service_pb2_grpc.add_RequestLogServiceServicer_to_server(
            RequestLogServicer(request_log, told=collector), server.grpc
        )
        server.offer(request_log_service_pb2.DESCRIPTOR.services_by_name["RequestLogService"].full_name)
        first = FirstLogin(postgres, token=config.setup_token.get_secret_value(), until=config.setup_until)
        egress = Egress(config.egress_allow.split(","))
        stack.push_async_callback(egress.aclose)
        secrets = Secrets(config.key_pepper.get_secret_value())
        mailer = Mailer(config.smtp_url.get_secret_value(), config.mail_from)
        public = public_server(
            postgres,
            pepper=pepper,
            signup=config.signup,
            first_login=first,
            offered=Offered(config.catalogue),
            mailer=mailer,
            mails=bool(config.smtp_url.get_secret_value()),
            public_url=config.public_url,
            check_url=egress.check,
            secrets=secrets,
            oidc=_oidc(config, postgres, stack),
            oidc_name=config.oidc_name,
            request_log=request_log,
            seals=bool(content_keys),
            spend=Spend(postgres, await _spend_replica(config, stack)),
            tls=tls.called_by("edge") if tls is not None else None,
            provider_keys=provider_keys,
            callers=callers,
            fresh_s=config.fresh_s,
        )

        tidies: dict[str, Callable[[], Awaitable[None]]] = {
            "paces": kept.tidy,
            "tries": partial(tidy, postgres),
            "answers": answers.tidy,
            "responses": responses.tidy,
            "conversations": conversations.tidy,
            "traffic": traffic.tidy,
            "background": partial(book_left, background, quota),
        }
        if exports is not None:
            tidies["exports"] = exports.tidy
            await stack.enter_async_context(LogExporter(exports, every_s=config.request_log_every_s))
        backlogs = [RequestLogSweep(postgres).tidy, Resealing(postgres, content_keys).tidy]
        if config.ledger_retention_days is not None:
            retention = Retention(postgres, Checker(config.session_url), days=config.ledger_retention_days)
            stack.push_async_callback(retention.close)
            backlogs.append(retention.tidy)
        await stack.enter_async_context(Backlogs(backlogs))
        sweeper = Sweeper(
            ledger,
            quota.pools,
            tidies,
            every_s=config.lease_s / 20,
            rest_s=min(config.lease_s, config.block_s) / 2,
            patience_s=grace_s,
        )
        await stack.enter_async_context(sweeper)
        await stack.enter_async_context(Warner(Warnings(postgres), egress, mailer, secrets))
        public_port = await public.start(config.public_listen)
        stack.push_async_callback(public.stop, config.drain_s)
        port = await server.start(config.listen)
        stack.push_async_callback(server.stop, config.drain_s)
        yield Replica(postgres=postgres, quota=quota, port=port, public_port=public_port)


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
    postgres = Postgres(url, size=4, wait_s=config.database_wait_s, tells_time=False)
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
