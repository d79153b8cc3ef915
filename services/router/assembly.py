"""The router, put together: what `__main__` runs over the other services, and tests over what they play."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from moa.router.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    files_service_pb2,
    files_service_pb2_grpc,
    operator_service_pb2,
    operator_service_pb2_grpc,
    pages_service_pb2,
    pages_service_pb2_grpc,
    readiness_service_pb2,
    readiness_service_pb2_grpc,
)
from services.catalogue import Catalogue
from services.common.byte_admission import ByteAdmission
from services.common.credential import credential_of
from services.common.dialects.registrations import Registration, registrations
from services.common.egress import Egress
from services.common.helper_process import HelperProcess
from services.common.rpc.postponed import Postponed
from services.common.rpc.server import LAST_WORDS_S, Server
from services.common.rpc.tls import Tls
from services.common.store import Links, Store
from services.quota_client import Recording
from services.router import dialects
from services.router.adapters.catalogue_file import CatalogueFile
from services.router.adapters.fetching import Fetching
from services.router.adapters.inputs import Inputs
from services.router.body_check import BodyCheck
from services.router.catalogue_editing import CatalogueEditing
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Reading
from services.router.dialects.responses.background import BackgroundResponses
from services.router.domain.listing import Listing
from services.router.domain.operations import Operations
from services.router.domain.policies import Policies
from services.router.domain.ports import Missing
from services.router.domain.request_log import Log
from services.router.domain.terms import Patience
from services.router.domain.upstreams import Upstreams
from services.router.files import FilesServicer
from services.router.grpc_api import CatalogServicer, handlers
from services.router.idempotency.calls import IdempotentCalls
from services.router.operations import OPERATIONS
from services.router.operator import OperatorServicer
from services.router.pages import PagesServicer
from services.router.readiness import ReadinessServicer
from services.router.refusals import Refusals
from services.router.serving import own_keys
from services.router.settings import RouterSettings


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Around:
    """What the router stands between: who admits, who answers, and where objects lie."""

    catalogue: Callable[[], Catalogue]
    """Returns the catalogue as it is now."""
    refused: Callable[[], str]
    """Returns why the catalogue's last change was refused; empty where it was not."""
    facts_refused: Callable[[], str] = str
    """Returns why what the operator's address told of models was refused; empty where it was not."""
    admission: Any
    claims: Any
    """Keeps answers to requests with an idempotency key."""
    responses: Any
    """Keeps responses for accounts that have them stored; `adapters.stored.ResponseStore` is one."""
    backends: Any
    states: Any
    """Returns how far the gateway's own models are."""
    store: Store
    links: Links
    egress: Egress
    policies: Policies | None = None
    """What judges requests and answers."""
    relisted: Callable[[], Awaitable[bool]] | None = None
    """Has providers list their models anew, and returns whether any did change; none: they list nothing."""
    upstreams: Upstreams | None = None
    """Providers' limits."""
    request_log: Log | None = None
    """Takes what is logged of requests; none: nothing is."""
    operator_store: Any = None
    """Says who is an administrator, and what all routers saw; none: nobody is answered as one."""
    provider_states: Any = None
    """Says how providers are configured; `adapters.provider_states.ProviderStates` is one."""
    engines: Any = None
    """Says what the inference service does; `adapters.model_states.ModelStates` is one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What decides which providers are configured."""
    recording: Callable[[], Recording] = Recording
    """Says whether what requests consume can be recorded."""
    missing: Callable[[], Awaitable[Missing]] | None = None
    """Says what the router cannot reach; none: nothing is asked."""
    look: Callable[[], None] = _nothing
    """Has the catalogue's file looked at."""
    patience: Patience | None = None
    """How failed attempts are tried again; none: as it is usual."""


@asynccontextmanager
async def serving(config: RouterSettings, around: Around, tls: Tls | None = None) -> AsyncIterator[int]:
    """Serve until the block ends, then drain; yield the port. What is around is opened and closed by the caller."""
    inputs = Fetching(Inputs(egress=around.egress, store=around.store, links=around.links))
    operations = Operations(
        catalogue=around.catalogue,
        admission=around.admission,
        backends=around.backends,
        inputs=inputs,
        patience=around.patience,
        policies=around.policies,
        relisted=around.relisted,
        upstreams=around.upstreams,
        request_log=around.request_log,
    )
    token, seed = credential_of(config), config.service_token.get_secret_value()
    begin = own_keys(token, _takes_key(config, around))
    helper = HelperProcess(large_only=bool(config.yields))
    reading = Reading(helper)
    background = BackgroundResponses(around.responses, operations, reading, service_token=token)
    idempotent_calls = IdempotentCalls(around.admission, around.claims, begin=begin, reading=reading, secret=seed)
    parts = Parts(
        operations=operations,
        listing=Listing(
            operations=OPERATIONS, catalogue=around.catalogue, admission=around.admission, states=around.states
        ),
        begin=begin,
        reading=reading,
        store=around.store,
        links=around.links,
        admission=around.admission,
        responses=around.responses,
        background=background,
    )
    server = _served(config, around, parts, idempotent_calls, helper, tls)
    port = await server.start(config.listen)
    background.start()
    try:
        yield port
    finally:
        await server.stop(config.drain_s, around.backends.end)
        if around.upstreams is not None:
            await around.upstreams.aclose()
        await idempotent_calls.aclose(LAST_WORDS_S)
        await background.aclose()
        await helper.aclose()
        await operations.aclose()


def _takes_key(config: RouterSettings, around: Around) -> Callable[[str], bool] | None:
    """Return what tells providers' keys, by the catalogue as it is then; None where callers may bring none."""
    return (lambda key: around.catalogue().takes_key(key)) if config.byok else None


def _served(
    config: RouterSettings,
    around: Around,
    parts: Parts,
    idempotent_calls: IdempotentCalls,
    helper: HelperProcess,
    tls: Tls | None,
) -> Server:
    """Return the server of all that the router offers, not started."""
    takes_key = _takes_key(config, around)
    refusals = Refusals(around.admission, around.catalogue, takes_key=takes_key, log=around.request_log)
    room = ByteAdmission(came=Postponed(config.large_fd).want)
    server = Server(
        service_token=None,
        connection_age_s=config.connection_age_s,
        tls=tls,
        reword=refusals,
        welcome=refusals.welcome,
        admission=room,
        around=idempotent_calls.around,
        helper=helper,
        ready=lambda: not around.recording().refuses,
    )
    server.grpc.add_generic_rpc_handlers(handlers(parts.operations, parts.reading))
    server.offer(*(operation.service for operation in OPERATIONS.values()))
    for each in registrations(dialects, Registration):
        each.serve(server.grpc, parts)
        server.offer(*each.services)
    _add_own(server, around, parts.listing)
    if around.operator_store is not None:
        _add_operator(server, config, around)
    server.grpc.add_generic_rpc_handlers((BodyCheck(around.admission, room=room, takes_key=takes_key).handler(),))
    return server


def _add_own(server: Server, around: Around, listing: Listing) -> None:
    """Add what the router offers in its own dialect: the catalogue, files, pages, and whether it is ready."""
    grpc = server.grpc
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogServicer(listing), grpc)
    files = FilesServicer(around.store, around.links, around.admission)
    files_service_pb2_grpc.add_FilesServiceServicer_to_server(files, grpc)
    pages_service_pb2_grpc.add_PagesServiceServicer_to_server(PagesServicer(), grpc)
    readiness_service_pb2_grpc.add_ReadinessServiceServicer_to_server(
        ReadinessServicer(around.refused, around.facts_refused, around.recording, around.missing), grpc
    )
    for module, name in (
        (catalog_service_pb2, "CatalogService"),
        (files_service_pb2, "FilesService"),
        (pages_service_pb2, "PagesService"),
        (readiness_service_pb2, "ReadinessService"),
    ):
        server.offer(module.DESCRIPTOR.services_by_name[name].full_name)


def _add_operator(server: Server, config: RouterSettings, around: Around) -> None:
    """Add what administrators see and change of the gateway."""
    operator = OperatorServicer(
        catalogue=around.catalogue,
        store=around.operator_store,
        states=around.provider_states,
        engines=around.engines,
        editing=CatalogueEditing(
            CatalogueFile(config.catalogue, editable=config.catalogue_editable),
            now=around.catalogue,
            environment=around.environment,
            states=around.provider_states,
            changed=around.look,
        ),
        refused=around.refused,
    )
    operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(operator, server.grpc)
    server.offer(operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name)
