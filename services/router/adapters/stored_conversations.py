"""Stored conversations, at the auth service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from moa.response.v1 import conversation_store_service_pb2 as pb
from moa.response.v1 import conversation_store_service_pb2_grpc
from services.common.credential import Credential
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc

_TIMEOUT_S: Final = 10.0


class ConversationStore:
    """Stores and reads conversations. Every method raises MoaError.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
    """

    def __init__(self, auth: grpc.aio.Channel, *, service_token: Credential) -> None:
        self._stub: Any = conversation_store_service_pb2_grpc.ConversationStoreServiceStub(auth)
        self._token = service_token

    async def create(
        self, account_id: str, name: str, metadata: bytes, items: Sequence[pb.StoredItem]
    ) -> pb.StoredConversation:
        """Make a conversation."""
        request = pb.CreateConversationRequest(
            account_id=account_id, conversation_id=name, metadata=metadata, items=items
        )
        return await self._conversation(self._stub.CreateConversation, request)

    async def read(self, account_id: str, name: str) -> pb.StoredConversation:
        """Return a conversation."""
        request = pb.ReadConversationRequest(account_id=account_id, conversation_id=name)
        return await self._conversation(self._stub.ReadConversation, request)

    async def update(self, account_id: str, name: str, metadata: bytes) -> pb.StoredConversation:
        """Change what is noted of a conversation."""
        request = pb.UpdateConversationRequest(account_id=account_id, conversation_id=name, metadata=metadata)
        return await self._conversation(self._stub.UpdateConversation, request)

    async def delete(self, account_id: str, name: str) -> None:
        """Forget a conversation."""
        request = pb.DeleteConversationRequest(account_id=account_id, conversation_id=name)
        await called(self._stub.DeleteConversation, request, self._token)

    async def add_items(self, account_id: str, name: str, items: Sequence[pb.StoredItem]) -> None:
        """Add items at the end."""
        request = pb.AddItemsRequest(account_id=account_id, conversation_id=name, items=items)
        await called(self._stub.AddItems, request, self._token)

    async def items(self, request: pb.ReadItemsRequest) -> pb.ReadItemsResponse:
        """Return items."""
        found: pb.ReadItemsResponse = await called(self._stub.ReadItems, request, self._token)
        return found

    async def delete_item(self, account_id: str, name: str, item_id: str) -> pb.StoredConversation:
        """Forget an item; return its conversation."""
        request = pb.DeleteItemRequest(account_id=account_id, conversation_id=name, item_id=item_id)
        return await self._conversation(self._stub.DeleteItem, request)

    async def _conversation(self, method: Any, request: Any) -> pb.StoredConversation:
        found: pb.StoredConversation = (await called(method, request, self._token)).conversation
        return found


async def called(method: Any, request: Any, token: Credential) -> Any:
    """Call the auth service. Raises MoaError."""
    try:
        return await method(request, metadata=metadata(token, calls.current().request_id), timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as failure:
        raise error_from_rpc(failure) from None
