"""moa.response.v1 over the responses that are stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from moa.quota.v1 import quota_pb2
from moa.response.v1 import response_store_service_pb2 as pb
from moa.response.v1 import response_store_service_pb2_grpc
from services.auth.adapters.background_responses import BackgroundResponses
from services.auth.adapters.stored_responses import StoredResponses
from services.common import logs
from services.common.errors import InvalidField, MoaError
from services.common.rpc import call as calls

_log = logs.get("responses")

_MOST_RENEWED: Final = 1_000


class Books(Protocol):
    """Who books what was consumed; `Quota` is one."""

    async def settle(self, settlements: Iterable[quota_pb2.Settlement]) -> tuple[list[str], list[str], Any]:
        """Book settlements, each reservation once; return which are booked, and which never can be."""


class ResponseStoreServicer(response_store_service_pb2_grpc.ResponseStoreServiceServicer):
    """Answers the routers."""

    def __init__(self, responses: StoredResponses, background: BackgroundResponses, books: Books) -> None:
        self._responses = responses
        self._background = background
        self._books = books

    async def Prepare(self, request: pb.PrepareRequest, context: Any) -> pb.PrepareResponse:
        """Read what a response goes on from."""
        account_id, previous_id = _account(request), request.previous_response_id
        items, until = await self._responses.prepare(
            account_id, previous_id, conversation_id=request.conversation_id, stores=not request.reads_only
        )
        return pb.PrepareResponse(items=items, conversation_until=until)

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

    async def Enqueue(self, request: pb.EnqueueRequest, context: Any) -> pb.EnqueueResponse:
        """Store a response that is to be made."""
        _account(request.response)
        if not request.response.response_id or not request.key_id:
            raise InvalidField("a response needs an id, and a key that asked", param="response.response_id")
        answer = pb.EnqueueResponse(fence=await self._background.enqueue(request))
        answer.expires_in.FromMilliseconds(int(self._background.lease_s * 1000))
        return answer

    async def Claim(self, request: pb.ClaimRequest, context: Any) -> pb.ClaimResponse:
        """Take a response up."""
        answer = await self._background.claim()
        answer.expires_in.FromMilliseconds(int(self._background.lease_s * 1000))
        return answer

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        """Renew leases."""
        if len(request.made) > _MOST_RENEWED:
            raise InvalidField(f"at most {_MOST_RENEWED} in one call", param="made")
        return await self._background.renew(request.made)

    async def Append(self, request: pb.AppendRequest, context: Any) -> pb.AppendResponse:
        """Store a part of a response."""
        return pb.AppendResponse(counted=await self._background.append(request))

    async def Finish(self, request: pb.FinishRequest, context: Any) -> pb.FinishResponse:
        """Store the end of a response, and book what it came to."""
        counted = await self._background.finish(request)
        if counted and request.HasField("settlement"):
            try:
                await book(self._background, self._books, [(request.made.response_id, request.settlement)])
            except MoaError as error:
                # It is stored with the response, and booked later.
                _log.warning("settlement.postponed", why=error.message)
        return pb.FinishResponse(counted=counted)

    async def PutBack(self, request: pb.PutBackRequest, context: Any) -> pb.PutBackResponse:
        """Put a response back."""
        await self._background.put_back(request.made)
        return pb.PutBackResponse()

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        """End a response that is being made."""
        return pb.CancelResponse(body=await self._background.cancel(_account(request), request.response_id))


async def book(
    background: BackgroundResponses, books: Books, given: Sequence[tuple[str, quota_pb2.Settlement]]
) -> None:
    """Book what responses came to, and note which are booked."""
    booked, refused, _ = await books.settle([settlement for _, settlement in given])
    done = {*booked, *refused}
    if names := [name for name, settlement in given if settlement.reservation_id in done]:
        await background.booked(names)


async def book_left(background: BackgroundResponses, books: Books) -> None:
    """Book what was not booked when it ended."""
    if left := await background.unbooked():
        await book(background, books, left)


def _account(request: Any) -> str:
    account_id: str = request.account_id
    if not account_id:
        raise InvalidField("whose it is has to be told", param="account_id")
    calls.current().fields["account"] = account_id
    return account_id
