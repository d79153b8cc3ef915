"""How the providers of a service are configured, and whether they answer: what the operator's pages show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from moa.provider.v1 import provider_state_service_pb2 as pb
from moa.provider.v1 import provider_state_service_pb2_grpc
from services.catalogue import Catalogue, CatalogueError, Environment, Provider, Watched
from services.catalogue import tried as catalogue_tried
from services.common.errors import NotFound, ProviderNotConfigured, RateLimited
from services.providers.hosting import checking
from services.providers.hosting.lists import ProviderLists
from services.providers.hosting.targets import Targets

TEST_S: Final = 30.0
"""How long a test may take."""
_LATER_S: Final = 2.0
_OUTCOMES: Final = {
    "ok": pb.TEST_OUTCOME_ANSWERED,
    "hidden": pb.TEST_OUTCOME_NOT_CONFIGURED,
    "failed": pb.TEST_OUTCOME_FAILED,
    "untried": pb.TEST_OUTCOME_UNTRIED,
}


class ProviderStates(provider_state_service_pb2_grpc.ProviderStateServiceServicer):
    """Answers routers.

    Args:
        catalogue: Which providers there are.
        targets: Those that are asked here.
        lists: What they list.
        environment: Where their credentials are.
        refreshed: Has stored credentials be as they are now.
        check: Returns what is wrong with a catalogue for this service.
    """

    def __init__(
        self,
        catalogue: Watched,
        targets: Collection[Targets[Any]],
        lists: ProviderLists,
        environment: Environment,
        refreshed: Callable[[], Awaitable[None]],
        check: Callable[[Catalogue], str],
    ) -> None:
        self._catalogue = catalogue
        self._targets = targets
        self._lists = lists
        self._environment = environment
        self._refreshed = refreshed
        self._check = check
        self._testing = False

    async def ListProviderStates(
        self, request: pb.ListProviderStatesRequest, context: Any
    ) -> pb.ListProviderStatesResponse:
        """Return how each provider is configured."""
        catalogue = self._catalogue.now
        served = (p for p in catalogue.providers.values() if any(each.serves(p) for each in self._targets))
        return pb.ListProviderStatesResponse(
            providers=[self._state(catalogue, provider) for provider in served], catalogue_fault=self._catalogue.refused
        )

    async def TestProvider(self, request: pb.TestProviderRequest, context: Any) -> pb.TestProviderResponse:
        """Ask a provider by the cheapest call."""
        if self._testing:
            raise RateLimited("another provider is being tested; try again in a moment", retry_after_s=_LATER_S)
        self._testing = True
        try:
            await self._refreshed()
            await self._catalogue.followed(self._environment.version)
            return await self._tested(request.provider)
        finally:
            self._testing = False

    async def _tested(self, name: str) -> pb.TestProviderResponse:
        catalogue = self._catalogue.now
        provider = catalogue.providers.get(name)
        targets = next((each for each in self._targets if provider is not None and each.serves(provider)), None)
        if provider is None or targets is None:
            raise NotFound(f"this service asks no provider {name!r}")
        began = time.monotonic()
        try:
            async with asyncio.timeout(TEST_S):
                result = await checking.checked(targets, catalogue, provider)
        except TimeoutError:
            result = checking.CheckResult(name, "failed", f"it did not answer within {TEST_S:g} s")
        took = round(1000 * (time.monotonic() - began))
        return pb.TestProviderResponse(outcome=_OUTCOMES[result.state], detail=result.why, milliseconds=took)

    async def CheckCatalogue(self, request: pb.CheckCatalogueRequest, context: Any) -> pb.CheckCatalogueResponse:
        """Return what is wrong with a catalogue for this service."""
        try:
            await catalogue_tried(request.text, self._environment, self._check)
        except CatalogueError as error:
            return pb.CheckCatalogueResponse(fault=str(error))
        return pb.CheckCatalogueResponse()

    def _state(self, catalogue: Catalogue, provider: Provider) -> pb.ProviderState:
        state = pb.ProviderState(provider=provider.id, unavailable=self._lists.unavailable(provider.id))
        if provider.id not in catalogue.configured:
            state.why = f"needs {provider.needs}"
            return state
        state.key_source = self._source(provider)
        targets = next(each for each in self._targets if each.serves(provider))
        try:
            targets.of(catalogue, provider.id)
        except ProviderNotConfigured as error:
            state.why = error.message
        else:
            state.configured = True
        return state

    def _source(self, provider: Provider) -> pb.KeySource.ValueType:
        if not provider.credentials:
            return pb.KEY_SOURCE_NONE_NEEDED
        own = all(self._environment.has_own(variable) for variable in provider.credentials.values())
        return pb.KEY_SOURCE_ENVIRONMENT if own else pb.KEY_SOURCE_STORED
