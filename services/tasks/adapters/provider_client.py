"""Providers' batch APIs, at the text service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Final

import grpc

from moa.batch.v1 import provider_batch_service_pb2 as pb
from moa.batch.v1.provider_batch_service_pb2_grpc import ProviderBatchServiceStub
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc
from services.tasks.domain.provider_batch import Member, Pack

_CALL_S: Final = 300.0
_READ_S: Final = 3600.0


class ProviderClient:
    """Asks for batches. Every method raises MoaError.

    Args:
        text: The channel to the text service.
        service_token: The credential between services.
    """

    def __init__(self, text: grpc.aio.Channel, *, service_token: Credential) -> None:
        self._stub: Any = ProviderBatchServiceStub(text)
        self._token = service_token

    async def create(self, pack: Pack, requests: Sequence[tuple[int, GenerateTextRequest]]) -> tuple[str, set[str]]:
        """Hand a pack's requests over, by their places; return the provider's id, and the names of those it refused."""
        asked = pb.CreateProviderBatchRequest(
            provider=pack.provider,
            model=pack.model,
            name=pack.id,
            requests=[pb.BatchedRequest(custom_id=pack.custom_id(at), request=each) for at, each in requests],
        )
        made = await self._called(self._stub.CreateProviderBatch, asked, pack)
        return made.provider_batch_id, set(made.refused_ids)

    async def find(self, pack: Pack, known: Collection[str]) -> tuple[str, bool]:
        """Return the provider's id of a pack that may be there, empty where it is not, and whether that is unsure."""
        asked = pb.FindProviderBatchRequest(
            provider=pack.provider,
            model=pack.model,
            name=pack.id,
            since=int(pack.created_at.timestamp()) if pack.created_at else 0,
            requests=pack.requests,
            known_ids=known,
        )
        found = await self._called(self._stub.FindProviderBatch, asked, pack)
        return found.provider_batch_id, found.undecided

    async def has_ended(self, pack: Pack) -> bool:
        """Return whether a pack has ended."""
        asked = pb.GetProviderBatchRequest(
            provider=pack.provider, model=pack.model, provider_batch_id=pack.provider_batch_id or ""
        )
        return bool((await self._called(self._stub.GetProviderBatch, asked, pack)).ended)

    async def cancel(self, pack: Pack) -> None:
        """Ask for a pack's end."""
        asked = pb.CancelProviderBatchRequest(
            provider=pack.provider, model=pack.model, provider_batch_id=pack.provider_batch_id or ""
        )
        await self._called(self._stub.CancelProviderBatch, asked, pack)

    async def results(self, pack: Pack, members: Sequence[Member]) -> AsyncIterator[pb.ReadProviderBatchResponse]:
        """Yield what became of a pack's requests."""
        asked = pb.ReadProviderBatchRequest(
            provider=pack.provider,
            model=pack.model,
            provider_batch_id=pack.provider_batch_id or "",
            requests=[
                pb.BatchedRequest(custom_id=pack.custom_id(each.asked.place), request=each.handed.request)
                for each in members
            ],
        )
        call = self._stub.ReadProviderBatch(asked, metadata=metadata(self._token, pack.id), timeout=_READ_S)
        try:
            while (result := await call.read()) is not grpc.aio.EOF:
                yield result
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        finally:
            call.cancel()

    async def _called(self, method: Any, request: Any, pack: Pack) -> Any:
        try:
            return await method(request, metadata=metadata(self._token, pack.id), timeout=_CALL_S)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
