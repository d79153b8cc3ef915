"""Stored responses, at the auth service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from moa.response.v1 import response_store_service_pb2 as pb
from moa.response.v1 import response_store_service_pb2_grpc
from services.common.credential import Credential
from services.router.adapters.stored_conversations import ConversationStore, called


class ResponseStore:
    """Stores and reads responses. Every method raises MoaError.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
    """

    def __init__(self, auth: grpc.aio.Channel, *, service_token: Credential) -> None:
        self._stub: Any = response_store_service_pb2_grpc.ResponseStoreServiceStub(auth)
        self._token = service_token
        self.conversations = ConversationStore(auth, service_token=service_token)

    async def prepare(
        self, account_id: str, previous_id: str, *, stores: bool, conversation_id: str = ""
    ) -> pb.PrepareResponse:
        """Return the items that a response goes on from; where it `stores`, once there is room for it."""
        request = pb.PrepareRequest(
            account_id=account_id,
            previous_response_id=previous_id,
            conversation_id=conversation_id,
            reads_only=not stores,
        )
        found: pb.PrepareResponse = await self._call(self._stub.Prepare, request)
        return found

    async def store(self, response: pb.StoredResponse) -> None:
        """Store a response that has ended."""
        await self._call(self._stub.Store, pb.StoreRequest(response=response))

    async def read(self, account_id: str, response_id: str) -> pb.ReadResponse:
        """Return a response."""
        found: pb.ReadResponse = await self._call(
            self._stub.Read, pb.ReadRequest(account_id=account_id, response_id=response_id)
        )
        return found

    async def input_of(self, account_id: str, response_id: str) -> list[bytes]:
        """Return all items that a response was made from."""
        request = pb.ReadInputRequest(account_id=account_id, response_id=response_id)
        return list((await self._call(self._stub.ReadInput, request)).items)

    async def events(self, account_id: str, response_id: str, after: int) -> pb.ReadEventsResponse:
        """Return the events of a response behind one of them."""
        request = pb.ReadEventsRequest(account_id=account_id, response_id=response_id, after=after)
        found: pb.ReadEventsResponse = await self._call(self._stub.ReadEvents, request)
        return found

    async def delete(self, account_id: str, response_id: str) -> None:
        """Forget a response."""
        await self._call(self._stub.Delete, pb.DeleteRequest(account_id=account_id, response_id=response_id))

    async def enqueue(self, asked: pb.EnqueueRequest) -> pb.EnqueueResponse:
        """Store a response that is to be made in the background."""
        made: pb.EnqueueResponse = await self._call(self._stub.Enqueue, asked)
        return made

    async def claim(self) -> pb.ClaimResponse:
        """Take a response up that waits; one without an id: none does."""
        claimed: pb.ClaimResponse = await self._call(self._stub.Claim, pb.ClaimRequest())
        return claimed

    async def renew(self, made: Sequence[pb.Made]) -> pb.RenewResponse:
        """Renew leases of what is being made."""
        renewed: pb.RenewResponse = await self._call(self._stub.Renew, pb.RenewRequest(made=made))
        return renewed

    async def append(self, asked: pb.AppendRequest) -> bool:
        """Store a part; return whether it counted."""
        return bool((await self._call(self._stub.Append, asked)).counted)

    async def finish(self, asked: pb.FinishRequest) -> bool:
        """Store the end, and have it booked; return whether it counted."""
        return bool((await self._call(self._stub.Finish, asked)).counted)

    async def put_back(self, made: pb.Made) -> None:
        """Let another router take a response up."""
        await self._call(self._stub.PutBack, pb.PutBackRequest(made=made))

    async def cancel(self, account_id: str, response_id: str) -> bytes:
        """End a response that is being made; return it."""
        asked = pb.CancelRequest(account_id=account_id, response_id=response_id)
        return bytes((await self._call(self._stub.Cancel, asked)).body)

    async def _call(self, method: Any, request: Any) -> Any:
        return await called(method, request, self._token)
