"""moa.router.v1.OperatorService: how the gateway's parts are, for administrators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from moa.router.v1 import operator_service_pb2 as pb
from moa.router.v1 import operator_service_pb2_grpc
from services.catalogue import Catalogue
from services.common.errors import InvalidField, NotFound
from services.router.catalogue_editing import MOST_ROWS, CatalogueEditing
from services.router.domain.described_providers import described
from services.router.domain.described_routes import described_routes, described_rows
from services.router.serving import begin

SPANS_S: Final = {pb.SPAN_UNSPECIFIED: 3600, pb.SPAN_HOUR: 3600, pb.SPAN_DAY: 86_400}


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Answers administrators, and refuses everyone else.

    Args:
        catalogue: Returns the catalogue as it is now, with what providers list.
        store: Says who is an administrator, and what all routers saw; `adapters.operator_store.OperatorStore` is one.
        states: The services that ask providers; `adapters.provider_states.ProviderStates` is one.
        engines: The inference service; `adapters.model_states.ModelStates` is one.
        editing: Changes the catalogue's file.
        refused: Returns why the catalogue's last change was refused; empty where it was not.
    """

    def __init__(
        self,
        *,
        catalogue: Callable[[], Catalogue],
        store: Any,
        states: Any,
        engines: Any,
        editing: CatalogueEditing,
        refused: Callable[[], str],
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._states = states
        self._engines = engines
        self._editing = editing
        self._refused = refused

    async def DescribeProviders(
        self, request: pb.DescribeProvidersRequest, context: Any
    ) -> pb.DescribeProvidersResponse:
        """Describe providers."""
        await self._administrator(context)
        states, stored, seen = await asyncio.gather(
            self._states.list(), self._store.stored_keys(), self._store.traffic(SPANS_S.get(request.span, 3600))
        )
        return pb.DescribeProvidersResponse(providers=described(self._catalogue(), states, stored, seen))

    async def TestProvider(self, request: pb.TestProviderRequest, context: Any) -> pb.TestProviderResponse:
        """Ask a provider by the cheapest call."""
        await self._administrator(context, changes=True)
        provider = self._catalogue().providers.get(request.provider_id)
        if provider is None:
            raise NotFound(f"the catalogue has no provider {request.provider_id!r}; GET /admin/providers lists them")
        if provider.service not in ("text", "image"):
            raise InvalidField(
                f"provider {provider.id!r} runs on the operator's own machines, so there is no call to try;"
                " GET /admin/inference tells how its models are",
                param="provider_id",
            )
        answer = await self._states.test(provider.service, provider.id)
        return pb.TestProviderResponse(outcome=answer.outcome, detail=answer.detail, milliseconds=answer.milliseconds)

    async def DescribeInference(
        self, request: pb.DescribeInferenceRequest, context: Any
    ) -> pb.DescribeInferenceResponse:
        """Describe the inference service."""
        await self._administrator(context)
        return pb.DescribeInferenceResponse(
            pools=[pb.InferencePool(pool=pool, process=process) for pool, process in await self._engines.pools()]
        )

    async def DescribeRoutes(self, request: pb.DescribeRoutesRequest, context: Any) -> pb.DescribeRoutesResponse:
        """Describe the virtual models."""
        await self._administrator(context)
        seen = await self._store.traffic(SPANS_S.get(request.span, 3600))
        return pb.DescribeRoutesResponse(routes=described_routes(self._catalogue(), seen))

    async def DescribeCatalogue(
        self, request: pb.DescribeCatalogueRequest, context: Any
    ) -> pb.DescribeCatalogueResponse:
        """Describe the catalogue."""
        await self._administrator(context)
        file = self._editing.file
        text, states = await asyncio.gather(asyncio.to_thread(file.read), self._states.list())
        rows = list(described_rows(self._catalogue()))
        why = file.why_not
        response = pb.DescribeCatalogueResponse(
            rows=rows[:MOST_ROWS],
            row_count=len(rows),
            text=text.text,
            etag=text.etag,
            path=str(file.path),
            editable=not why,
            why=why,
        )
        faults = {"router": self._refused(), **{name: state.catalogue_fault for name, state in states.items()}}
        for service, fault in faults.items():
            if fault:
                response.faults.add(service=service, fault=fault)
        return response

    async def PreviewCatalogue(self, request: pb.PreviewCatalogueRequest, context: Any) -> pb.PreviewCatalogueResponse:
        """Tell what a text would change."""
        await self._administrator(context, changes=True)
        preview: pb.PreviewCatalogueResponse = await self._editing.preview(request.text)
        return preview

    async def ApplyCatalogue(self, request: pb.ApplyCatalogueRequest, context: Any) -> pb.ApplyCatalogueResponse:
        """Put a text in the file's place."""
        actor = await self._administrator(context, changes=True)
        self._editing.file.check_editable()
        await self._editing.check(request.text)
        await self._editing.check_current(request.etag)
        # Before it is done: what cannot be in the audit log is not done.
        await self._store.audit(actor, "catalogue.changed", f"from={request.etag}", f"path={self._editing.file.path}")
        return pb.ApplyCatalogueResponse(etag=await self._editing.apply(request.text, request.etag))

    async def _administrator(self, context: Any, *, changes: bool = False) -> str:
        """Return the account of the administrator who calls. Raises PermissionDenied for everyone else."""
        account: str = await self._store.authorize(begin(context).key, changes=changes)
        return account
