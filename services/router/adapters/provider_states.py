"""How providers are configured and whether they answer, as the services that ask them say it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import grpc

from moa.provider.v1 import provider_state_service_pb2 as pb
from moa.provider.v1 import provider_state_service_pb2_grpc
from services.common import logs
from services.common.credential import Credential
from services.common.errors import NotFound
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc

WAIT_S: Final = 2.0
_TEST_S: Final = 40.0
_CHECK_S: Final = 60.0

_log = logs.get("states")


class ProviderStates:
    """Asks the services that ask providers.

    Args:
        channels: To those services, by name.
        service_token: The internal credential.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], *, service_token: Credential) -> None:
        self._stubs: dict[str, Any] = {
            name: provider_state_service_pb2_grpc.ProviderStateServiceStub(channel)
            for name, channel in channels.items()
        }
        self._token = service_token

    async def list(self) -> Mapping[str, pb.ListProviderStatesResponse]:
        """Return what each service says, by its name; nothing of one that does not answer."""
        answers = await asyncio.gather(*(self._list(name) for name in self._stubs))
        return {name: answer for name, answer in zip(self._stubs, answers, strict=True) if answer is not None}

    async def _list(self, name: str) -> pb.ListProviderStatesResponse | None:
        try:
            answer: pb.ListProviderStatesResponse = await self._stubs[name].ListProviderStates(
                pb.ListProviderStatesRequest(), metadata=self._metadata(), timeout=WAIT_S
            )
        except grpc.aio.AioRpcError as error:
            _log.info("provider_states.not_told", service=name, code=error.code().name)
            return None
        return answer

    async def test(self, service: str, provider: str) -> pb.TestProviderResponse:
        """Have a provider asked by its service. Raises MoaError."""
        if service not in self._stubs:
            raise NotFound(f"this gateway runs no service {service!r}, which would ask provider {provider!r}")
        request = pb.TestProviderRequest(provider=provider)
        try:
            answer: pb.TestProviderResponse = await self._stubs[service].TestProvider(
                request, metadata=self._metadata(), timeout=_TEST_S
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        return answer

    async def faults(self, text: str) -> Mapping[str, str | None]:
        """Return what is wrong with a catalogue for each service, by its name: None for one that does not answer."""
        request = pb.CheckCatalogueRequest(text=text)
        answers = await asyncio.gather(*(self._fault(name, request) for name in self._stubs))
        return dict(zip(self._stubs, answers, strict=True))

    async def _fault(self, name: str, request: pb.CheckCatalogueRequest) -> str | None:
        try:
            answer: pb.CheckCatalogueResponse = await self._stubs[name].CheckCatalogue(
                request, metadata=self._metadata(), timeout=_CHECK_S
            )
        except grpc.aio.AioRpcError as error:
            _log.info("catalogue.not_checked", service=name, code=error.code().name)
            return None
        return answer.fault

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata(self._token, calls.current().request_id)
