"""moa.router.v1.OperatorService: how the gateway's parts are, for administrators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from moa.router.v1 import operator_service_pb2 as pb
from moa.router.v1 import operator_service_pb2_grpc
from services.catalogue import Catalogue
from services.common.errors import NotFound
from services.router.domain.described_providers import described
from services.router.serving import begin

SPANS_S: Final = {pb.SPAN_UNSPECIFIED: 3600, pb.SPAN_HOUR: 3600, pb.SPAN_DAY: 86_400}


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Answers administrators, and refuses everyone else.

    Args:
        catalogue: Returns the catalogue as it is now, with what providers list.
        store: Says who is an administrator, and what all routers saw; `adapters.operator_store.OperatorStore` is one.
        states: The services that ask providers; `adapters.provider_states.ProviderStates` is one.
    """

    def __init__(self, *, catalogue: Callable[[], Catalogue], store: Any, states: Any) -> None:
        self._catalogue = catalogue
        self._store = store
        self._states = states

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
        if provider is None or provider.service not in ("text", "image"):
            raise NotFound(f"the catalogue has no provider {request.provider_id!r} that is asked by a key")
        answer = await self._states.test(provider.service, provider.id)
        return pb.TestProviderResponse(outcome=answer.outcome, detail=answer.detail, milliseconds=answer.milliseconds)

    async def _administrator(self, context: Any, *, changes: bool = False) -> str:
        """Return the account of the administrator who calls. Raises PermissionDenied for everyone else."""
        account: str = await self._store.authorize(begin(context).key, changes=changes)
        return account
