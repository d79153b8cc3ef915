"""Conversations: `/v1/conversations` and what is below it."""

from __future__ import annotations

from typing import Any, Final, TypeVar
from uuid import uuid4

import msgspec
from google.api import httpbody_pb2

from moa.response.v1 import conversation_store_service_pb2 as store_pb
from moa.router.v1 import responses_service_pb2 as pb
from services.common import words
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import InvalidField, Unsupported
from services.common.rpc import call as calls
from services.router.dialects import reply
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.responses import answers, bodies, noted, state
from services.router.dialects.responses.items import Conversation, kind_of
from services.router.dialects.responses.keeping import TURN_ON
from services.router.dialects.responses.stored import listed, read_page
from services.router.dialects.unknown import parse_liberally
from services.router.domain.ports import VerifiedKey
from services.router.serving import begin

Json = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)

_CREATED: Final = msgspec.json.Decoder(bodies.ConversationBody)
_CHANGED: Final = msgspec.json.Decoder(bodies.ConversationChange)
_ADDED: Final = msgspec.json.Decoder(bodies.ItemsBody)


class ConversationServicer:
    """Answers about conversations."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._admission, self._reading = parts.admission, parts.reading
        self._conversations = parts.responses.conversations

    async def CreateConversation(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Make a conversation."""
        who = await self._storing(context)
        metadata, items = await self._reading(created, Body(request))
        name = f"conv_{uuid4().hex}"
        return _shown(await self._conversations.create(who.account_id, name, metadata, items))

    async def GetConversation(
        self, request: pb.ResponsesServiceGetConversationRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Read a conversation."""
        who = await self._who(context)
        return _shown(await self._conversations.read(who.account_id, request.conversation_id))

    async def UpdateConversation(
        self, request: pb.ResponsesServiceUpdateConversationRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Change a conversation's metadata."""
        who = await self._who(context)
        metadata = await self._reading(changed, Body(request.body))
        return _shown(await self._conversations.update(who.account_id, request.conversation_id, metadata))

    async def DeleteConversation(
        self, request: pb.ResponsesServiceDeleteConversationRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Delete a conversation."""
        who = await self._who(context)
        await self._conversations.delete(who.account_id, request.conversation_id)
        return reply.json_body({"id": request.conversation_id, "object": "conversation.deleted", "deleted": True})

    async def CreateConversationItems(
        self, request: pb.ResponsesServiceCreateConversationItemsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Add items."""
        who = await self._storing(context)
        items = await self._reading(added, Body(request.body))
        await self._conversations.add_items(who.account_id, request.conversation_id, items)
        return reply.json_body(listed([msgspec.json.decode(each.item) for each in items], more=False))

    async def ListConversationItems(
        self, request: pb.ResponsesServiceListConversationItemsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """List items."""
        who = await self._who(context)
        limit, order = read_page(request)
        found = await self._conversations.items(
            store_pb.ReadItemsRequest(
                account_id=who.account_id,
                conversation_id=request.conversation_id,
                limit=limit,
                descending=order == "desc",
                after=request.after,
            )
        )
        return reply.json_body(listed([msgspec.json.decode(item) for item in found.items], more=found.has_more))

    async def GetConversationItem(
        self, request: pb.ResponsesServiceGetConversationItemRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Read an item."""
        who = await self._who(context)
        found = await self._conversations.items(
            store_pb.ReadItemsRequest(
                account_id=who.account_id, conversation_id=request.conversation_id, item_id=request.item_id
            )
        )
        return reply.json_piece(data=found.items[0])

    async def DeleteConversationItem(
        self, request: pb.ResponsesServiceDeleteConversationItemRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Delete an item."""
        who = await self._who(context)
        return _shown(await self._conversations.delete_item(who.account_id, request.conversation_id, request.item_id))

    async def _who(self, context: Any) -> VerifiedKey:
        """Return whose key asks. Raises Unauthenticated, RateLimited."""
        verified_key = await self._admission.arrive(begin(context).key)
        calls.current().fields["account"] = verified_key.account_id
        return verified_key

    async def _storing(self, context: Any) -> VerifiedKey:
        """As `_who`; raises Unsupported for an account that has nothing stored."""
        who = await self._who(context)
        if not who.stores_responses:
            raise Unsupported(f"conversations of this account are not stored; {TURN_ON}")
        return who


def created(data: bytes) -> tuple[bytes, list[store_pb.StoredItem]]:
    """Return the metadata and the items of a body. Raises Malformed, InvalidField, Unsupported."""
    body = _read(data or b"{}", _CREATED)
    return _encoded(body.metadata), _stored(body.items or [])


def changed(data: bytes) -> bytes:
    """Return the metadata of a body. Raises Malformed, InvalidField."""
    return _encoded(_read(data, _CHANGED).metadata)


def added(data: bytes) -> list[store_pb.StoredItem]:
    """Return the items of a body. Raises as `created`."""
    return _stored(parse_liberally(data, _ADDED).body.items)


def _read(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return parse_liberally(data, decoder).body
    except InvalidField as error:
        raise noted.naming_key(error, data) from None


def _encoded(metadata: bodies.Metadata | None) -> bytes:
    """Return metadata as it is stored. Raises InvalidField."""
    noted.check(metadata or {})
    return reply.encode(metadata or {})


def _stored(items: list[Json]) -> list[store_pb.StoredItem]:
    """Return items as they are stored, once it is known that a request can have them."""
    for number, item in enumerate(items):
        where = f"items[{number}]"
        kind = kind_of(item, where)
        if kind != "item_reference" and kind not in bodies.ITEMS and kind not in bodies.OWN_ITEMS:
            step = words.step(kind, sorted({*bodies.ITEMS, *bodies.OWN_ITEMS})) or "; use message"
            raise InvalidField(f"{where}.type: no item is of the type {kind!r}{step}", param=f"{where}.type")
    Conversation().add_input(items, name="items")

    def name(item: Json, _: int) -> str:
        return f"{state.prefix_of(item)}_{uuid4().hex}"

    made = state.as_stored(reply.encode(items), name)
    return [store_pb.StoredItem(item_id=msgspec.json.decode(item)["id"], item=item) for item in made]


def _shown(found: store_pb.StoredConversation) -> httpbody_pb2.HttpBody:
    return reply.json_body(
        {
            "id": found.conversation_id,
            "object": "conversation",
            "created_at": found.created_at.seconds,
            "metadata": msgspec.Raw(found.metadata),
        }
    )


METHODS: Final = MethodSet(
    servicer=ConversationServicer,
    methods={
        "CreateConversation": Method(reads=bodies.ConversationBody, answers=answers.ConversationObject, is_paid=False),
        "GetConversation": Method(answers=answers.ConversationObject),
        "UpdateConversation": Method(
            reads=bodies.ConversationChange, answers=answers.ConversationObject, is_paid=False
        ),
        "DeleteConversation": Method(answers=answers.DeletedConversation),
        "CreateConversationItems": Method(reads=bodies.ItemsBody, answers=answers.ItemList, is_paid=False),
        "ListConversationItems": Method(answers=answers.ItemList),
        "GetConversationItem": Method(),
        "DeleteConversationItem": Method(answers=answers.ConversationObject),
    },
)
