"""What is stored of responses, read and deleted: `/v1/responses/{id}` and what is below it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.api import httpbody_pb2

from moa.response.v1 import response_store_service_pb2 as store_pb
from moa.router.v1 import responses_service_pb2 as pb
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import InvalidField
from services.common.rpc import call as calls
from services.router.adapters.stored import ResponseStore
from services.router.dialects import reply
from services.router.dialects.event_stream import COMMENT, SIGN_EVERY_S
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts
from services.router.dialects.responses import answers
from services.router.dialects.responses.keeping import page
from services.router.serving import begin

_MOST_ITEMS: Final = 100
_USUAL_ITEMS: Final = 20
_SOON_S: Final = 0.1
_LATER_S: Final = 1.0
"""How long events that are still to come are waited for, between two looks: at first, and at last."""
_PIECE_BYTES: Final = 64 * 1024
"""So many bytes of events are sent at once."""


class StoredServicer:
    """Answers about stored responses."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._admission, self._responses = parts.admission, parts.responses

    async def GetResponse(self, request: pb.ResponsesServiceGetResponseRequest, context: Any) -> None:
        """Read a response, or its events."""
        account_id = await self._account(context)
        if not request.stream:
            response = await self._responses.read(account_id, request.response_id)
            await context.write(reply.json_piece(data=response.body))
            return
        after = request.starting_after if request.HasField("starting_after") else -1
        if after < 0 and request.HasField("starting_after"):
            raise InvalidField("starting_after: a sequence number is expected, from 0", param="starting_after")
        await follow(self._responses, account_id, request.response_id, after, context)

    async def CancelResponse(
        self, request: pb.ResponsesServiceCancelResponseRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """End a response that is being made in the background."""
        body = await self._responses.cancel(await self._account(context), request.response_id)
        return reply.json_piece(data=body)

    async def DeleteResponse(
        self, request: pb.ResponsesServiceDeleteResponseRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Delete a response."""
        await self._responses.delete(await self._account(context), request.response_id)
        return reply.json_body({"id": request.response_id, "object": "response", "deleted": True})

    async def ListInputItems(
        self, request: pb.ResponsesServiceListInputItemsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """List what a response was made from."""
        account_id = await self._account(context)
        limit, order = read_page(request)
        items = await self._responses.input_of(account_id, request.response_id)
        return reply.json_body(listed(*page(items, limit=limit, order=order, after=request.after)))

    async def _account(self, context: Any) -> str:
        """Return whose key asks. Raises Unauthenticated, RateLimited."""
        verified_key = await self._admission.arrive(begin(context).key)
        calls.current().fields["account"] = verified_key.account_id
        return verified_key.account_id


async def follow(store: ResponseStore, account_id: str, response_id: str, after: int, context: Any) -> None:
    """Write the events of a response behind one of them, those that are still to come too, to its end.

    Args:
        after: The number of that event; -1: all are written.

    Raises NotFound, or InvalidField for one that was not streamed, or has no such event.
    """
    pause_s, silent_s = _SOON_S, 0.0
    is_checked = after < 0
    while True:
        # The event behind which they begin is read with them: where it is not there, a client would wait for nothing.
        found = await store.events(account_id, response_id, after - (not is_checked))
        if not found.streamed:
            raise InvalidField("stream: this response was made without; read it without, too", param="stream")
        if not is_checked:
            if not found.events:
                message = f"starting_after: this response has no event {after}; leave it out to read all"
                raise InvalidField(message, param="starting_after")
            del found.events[0]
            is_checked = True
        for piece in _pieces(found.events):
            await context.write(reply.sse_body(data=piece))
        if found.state not in (store_pb.RESPONSE_STATE_QUEUED, store_pb.RESPONSE_STATE_IN_PROGRESS):
            return
        after = found.last_sequence
        pause_s, silent_s = (_SOON_S, 0.0) if found.events else (min(2 * pause_s, _LATER_S), silent_s + pause_s)
        if silent_s >= SIGN_EVERY_S:
            await context.write(COMMENT)
            silent_s = 0.0
        await asyncio.sleep(pause_s)


def read_page(request: Any) -> tuple[int, str]:
    """Return the limit and the order of a page. Raises InvalidField."""
    limit = request.limit if request.HasField("limit") else _USUAL_ITEMS
    if not 1 <= limit <= _MOST_ITEMS:
        raise InvalidField(f"limit: from 1 to {_MOST_ITEMS}", param="limit")
    if request.order not in ("", "asc", "desc"):
        raise InvalidField("order: asc or desc", param="order")
    return limit, request.order or "desc"


def listed(items: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """Return a page as the API has it."""
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": None, "last_id": None}
    return {"object": "list", "data": items, **ends, "has_more": more}


def _pieces(events: Iterable[bytes]) -> Iterator[bytes]:
    """Yield events, several at once."""
    held: list[bytes] = []
    size = 0
    for event in events:
        held.append(event)
        size += len(event)
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


METHODS: Final = MethodSet(
    servicer=StoredServicer,
    methods={
        "GetResponse": Method(answers=answers.ResponseObject, streams=True),
        "CancelResponse": Method(answers=answers.ResponseObject),
        "DeleteResponse": Method(answers=answers.DeletedResponse),
        "ListInputItems": Method(answers=answers.ItemList),
    },
)
