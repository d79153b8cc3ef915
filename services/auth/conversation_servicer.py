"""moa.response.v1 over the conversations that are stored."""

from __future__ import annotations

from typing import Any

from moa.response.v1 import conversation_store_service_pb2 as pb
from moa.response.v1 import conversation_store_service_pb2_grpc
from services.auth.adapters.stored_conversations import StoredConversations
from services.common.errors import InvalidField
from services.common.rpc import call as calls


class ConversationStoreServicer(conversation_store_service_pb2_grpc.ConversationStoreServiceServicer):
    """Answers the routers."""

    def __init__(self, conversations: StoredConversations) -> None:
        self._conversations = conversations

    async def CreateConversation(
        self, request: pb.CreateConversationRequest, context: Any
    ) -> pb.CreateConversationResponse:
        """Make a conversation."""
        _account(request)
        if not request.conversation_id:
            raise InvalidField("a conversation needs an id", param="conversation_id")
        return pb.CreateConversationResponse(conversation=await self._conversations.create(request))

    async def ReadConversation(self, request: pb.ReadConversationRequest, context: Any) -> pb.ReadConversationResponse:
        """Read a conversation."""
        found = await self._conversations.read(_account(request), request.conversation_id)
        return pb.ReadConversationResponse(conversation=found)

    async def UpdateConversation(
        self, request: pb.UpdateConversationRequest, context: Any
    ) -> pb.UpdateConversationResponse:
        """Change what is noted of a conversation."""
        account_id, name = _account(request), request.conversation_id
        return pb.UpdateConversationResponse(
            conversation=await self._conversations.update(account_id, name, request.metadata)
        )

    async def DeleteConversation(
        self, request: pb.DeleteConversationRequest, context: Any
    ) -> pb.DeleteConversationResponse:
        """Forget a conversation."""
        await self._conversations.delete(_account(request), request.conversation_id)
        return pb.DeleteConversationResponse()

    async def AddItems(self, request: pb.AddItemsRequest, context: Any) -> pb.AddItemsResponse:
        """Add items."""
        await self._conversations.add_items(_account(request), request.conversation_id, request.items)
        return pb.AddItemsResponse()

    async def ReadItems(self, request: pb.ReadItemsRequest, context: Any) -> pb.ReadItemsResponse:
        """Read items."""
        _account(request)
        return await self._conversations.items(request)

    async def DeleteItem(self, request: pb.DeleteItemRequest, context: Any) -> pb.DeleteItemResponse:
        """Forget an item."""
        found = await self._conversations.delete_item(_account(request), request.conversation_id, request.item_id)
        return pb.DeleteItemResponse(conversation=found)


def _account(request: Any) -> str:
    account_id: str = request.account_id
    if not account_id:
        raise InvalidField("whose it is has to be told", param="account_id")
    calls.current().fields["account"] = account_id
    return account_id
