"""moa.response.v1 over the responses that are stored."""

from __future__ import annotations

from typing import Any

from moa.response.v1 import response_store_service_pb2 as pb
from moa.response.v1 import response_store_service_pb2_grpc
from services.auth.adapters.stored_responses import StoredResponses
from services.common.errors import InvalidField
from services.common.rpc import call as calls


class ResponseStoreServicer(response_store_service_pb2_grpc.ResponseStoreServiceServicer):
    """Answers the routers."""

    def __init__(self, responses: StoredResponses) -> None:
        self._responses = responses

    async def Prepare(self, request: pb.PrepareRequest, context: Any) -> pb.PrepareResponse:
        """Read what a response goes on from."""
        account_id, previous_id = _account(request), request.previous_response_id
        items = await self._responses.prepare(account_id, previous_id, stores=not request.reads_only)
        return pb.PrepareResponse(items=items)

    async def Store(self, request: pb.StoreRequest, context: Any) -> pb.StoreResponse:
        """Store a response."""
        _account(request.response)
        if not request.response.response_id:
            raise InvalidField("a response needs an id", param="response.response_id")
        await self._responses.store(request.response)
        return pb.StoreResponse()

    async def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:
        """Read a response."""
        found = await self._responses.read(_account(request), request.response_id)
        answer = pb.ReadResponse(body=found.body, state=pb.ResponseState.ValueType(found.state))
        answer.expires_at.FromDatetime(found.expires_at)
        return answer

    async def ReadInput(self, request: pb.ReadInputRequest, context: Any) -> pb.ReadInputResponse:
        """Read what a response was made from."""
        return pb.ReadInputResponse(items=await self._responses.input_of(_account(request), request.response_id))

    async def ReadEvents(self, request: pb.ReadEventsRequest, context: Any) -> pb.ReadEventsResponse:
        """Read events."""
        return await self._responses.events(_account(request), request.response_id, request.after)

    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:
        """Forget a response."""
        await self._responses.delete(_account(request), request.response_id)
        return pb.DeleteResponse()


def _account(request: Any) -> str:
    account_id: str = request.account_id
    if not account_id:
        raise InvalidField("whose it is has to be told", param="account_id")
    calls.current().fields["account"] = account_id
    return account_id
