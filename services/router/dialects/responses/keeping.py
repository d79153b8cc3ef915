"""Has responses stored: what one goes on from is read before it is made, and it is stored before its end is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn
from uuid import uuid4

from moa.response.v1 import response_store_service_pb2 as pb
from services.common import logs
from services.common.errors import InvalidField, MoaError, NotFound, TooLarge, Unsupported
from services.common.rpc import call as calls
from services.router.adapters.stored import ResponseStore
from services.router.dialects.reading import Body
from services.router.dialects.reply import encode
from services.router.dialects.responses import state
from services.router.dialects.responses.answering import Response
from services.router.dialects.responses.standing import Making, Standing
from services.router.domain.answer import Answer
from services.router.domain.caller import Caller
from services.router.domain.ports import KnownKey, RememberingAdmission, VerifiedKey

_log = logs.get("responses")

STATES: Final = {
    "completed": pb.RESPONSE_STATE_COMPLETED,
    "incomplete": pb.RESPONSE_STATE_INCOMPLETE,
    "failed": pb.RESPONSE_STATE_FAILED,
}
_INSTEAD: Final = {
    "previous_response_id": "or send all items in input",
    "conversation": "or send all items in input",
    "background": "or use stream: true",
}
MOST_EVENTS_BYTES: Final = 16 * 2**20
_MOST_NAMED: Final = 100
"""Of how many responses a request may name items."""
TURN_ON: Final = 'PATCH /account/me {"stores_responses": true} has them stored'
"""What an account does that wants its responses stored."""


class Kept:
    """What is stored of one request.

    Args:
        store: Where.
        wish: What its body says.
        making: Under which ids it is made.
        stores: Whether it is stored; None: that is known when it has begun.
        who: Whose it is; None: that is known when it has begun.
        earlier: The items that it goes on from.
        given: Its own input, as it stood in its body.
        until: The place of the last item of its conversation.
        names_items: Whether its body names items, which `given` has in the places of their ids.
    """

    def __init__(
        self,
        store: ResponseStore,
        wish: state.Wish,
        making: Making,
        *,
        stores: bool | None,
        who: KnownKey | None = None,
        earlier: Sequence[bytes] = (),
        given: bytes = b"",
        until: int = 0,
        names_items: bool = False,
    ) -> None:
        self._until = until
        self._names_items = names_items
        self._store = store
        self._wish = wish
        self.making = making
        self._stores = stores
        self.who = who
        self._earlier = earlier
        self._given = given
        self._account_id = ""
        self._frames: list[bytes] = []

    @property
    def may_store(self) -> bool:
        """Whether it may be stored, as far as is known before it begins."""
        return self._stores is not False

    @property
    def is_background(self) -> bool:
        """Whether it is made in the background."""
        return bool(self._wish.background)

    @property
    def earlier(self) -> int:
        """How many items of the body that is read are of what it goes on from."""
        return len(self._earlier)

    @property
    def standing(self) -> Standing:
        """What its response says of what is stored, once it has begun."""
        conversation = self._wish.conversation_id
        named = {"id": conversation} if conversation else None
        return Standing(bool(self._stores), self._wish.previous_response_id or None, self.is_background, named)

    def body(self, given: Body) -> Body:
        """Return the body that is read: with what it goes on from before its own input."""
        if not self._earlier and not self._names_items:
            return given
        own = self._given if self._names_items else None
        return Body.of(state.merged(given.take(), self._earlier, own), given.content_type)

    def begun(self, verified_key: VerifiedKey) -> Standing:
        """Return what its response says of what is stored, once it is known whose it is."""
        if self._stores is None:
            self._stores = bool(self._given) and verified_key.stores_responses
        if not self._stores:
            self._given = b""
        self._account_id = verified_key.account_id
        return self.standing

    @property
    def stores(self) -> bool:
        """Whether it is stored, once it has begun."""
        return bool(self._stores)

    def saw(self, frames: bytes) -> None:
        """Take events in as they are sent."""
        if self._stores:
            self._frames.append(frames)

    async def end(self, response: Response) -> bytes:
        """Store the response that has ended, and return its last events; one that could not be stored says so."""
        if not self._stores:
            return response.end()
        last = response.end()
        self._frames.append(last)
        if await self._is_stored(response):
            return last
        return response.end(stored=False)

    async def whole(self, response: Response) -> bytes:
        """As `end`, for a response that is not streamed: return it."""
        if not self._stores or await self._is_stored(response):
            return response.whole()
        return response.whole(stored=False)

    async def _is_stored(self, response: Response) -> bool:
        stored = self.stored(response, response.whole(), STATES[response.status])
        # They tell an answer four times over: of a very long one the response alone is stored.
        if sum(map(len, self._frames)) <= MOST_EVENTS_BYTES:
            stored.events.extend(parted(b"".join(self._frames)))
        self._frames.clear()
        try:
            await self._store.store(stored)
        except MoaError as error:
            # It is made and paid for: its caller has it all the same.
            calls.current().fields["unstored"] = error.message[:80]
            _log.warning("response.not_stored", why=error.message)
            return False
        return True

    def stored(self, response: Response, body: bytes, state_now: pb.ResponseState.ValueType) -> pb.StoredResponse:
        """Return what is stored of a response, without its events."""

        def name(item: state.Json, number: int) -> str:
            return f"{state.prefix_of(item)}_{response.answer_id}_in{number}"

        return pb.StoredResponse(
            response_id=response.id,
            account_id=self._account_id,
            previous_response_id=self._wish.previous_response_id or "",
            conversation_id=self._wish.conversation_id,
            conversation_until=self._until,
            state=state_now,
            input=state.as_stored(self._given, name),
            body=body,
        )


def parted(frames: bytes) -> list[bytes]:
    """Return events that were sent together, each as it was sent."""
    return [event + b"\n\n" for event in frames.split(b"\n\n")[:-1]]


class StoredStream:
    """An answer whose events are stored as they are sent, and whose response is before its end is told."""

    def __init__(self, answer: Answer[Any], response: Response, kept: Kept) -> None:
        self._answer, self._response, self._kept = answer, response, kept
        self._events = b""

    async def next(self) -> Any:
        """Return the answer's next message; None behind its last."""
        message = await self._answer.next()
        if message is not None:
            self._events = self._response.of(message)
            self._kept.saw(self._events)
            if self._response.is_over:
                self._events += await self._kept.end(self._response)
        return message

    def events(self, _: Any) -> bytes:
        """Return the events of the message that was read last."""
        return self._events


class Keeping:
    """Prepares what is stored of requests. Of an account that has nothing stored it asks nobody.

    Args:
        admission: Knows accounts.
        store: Where responses are.
    """

    def __init__(self, admission: RememberingAdmission, store: ResponseStore) -> None:
        self._admission = admission
        self._store = store

    async def begin(self, given: Body, caller: Caller) -> Kept:
        """Read what a request goes on from, and see that there is room for its response.

        Raises Unsupported for what needs an account whose responses are stored; NotFound, QuotaExhausted and others of
        the store.
        """
        wish, data = _wished(given), given.peek()
        needs = wish.needs_storing
        if wish.store is False and not needs:
            return Kept(self._store, wish, Making.first(caller.request_id), stores=False)
        who = (
            await self._admission.identify(caller.key) if needs or wish.store else self._admission.verified(caller.key)
        )
        if needs and (who is None or not who.stores_responses):
            raise Unsupported(
                f"{needs}: responses of this account are not stored; {TURN_ON}, {_INSTEAD[needs]}", param=needs
            )
        stores = None if who is None else who.stores_responses and wish.store is not False
        if len(data) > state.MOST_STORED_BYTES:
            stores = False
        conversation = wish.conversation_id
        if (wish.background or conversation) and not stores:
            _refuse_unstored(wish)
        earlier: Sequence[bytes] = ()
        until = 0
        if who is not None and (stores or wish.previous_response_id):
            prepared = await self._store.prepare(
                who.account_id,
                wish.previous_response_id or "",
                stores=bool(stores),
                conversation_id=conversation,
            )
            earlier, until = list(prepared.items), prepared.conversation_until
        # A caller may choose its request's id; a stored response has one that nobody can.
        making = Making.first(caller.request_id if stores is False else uuid4().hex)
        own = b"" if stores is False else state.input_in(data)
        named = state.referred(own) if stores else []
        if named and who is not None:
            own = state.with_items(own, await self._items(who.account_id, named, earlier))
        return Kept(
            self._store,
            wish,
            making,
            stores=stores,
            who=who,
            earlier=earlier,
            given=own,
            until=until,
            names_items=bool(named),
        )

    async def _items(self, account_id: str, named: Sequence[str], earlier: Sequence[bytes]) -> dict[str, bytes]:
        """Return items by their ids: of what the request goes on from, and of the responses that they are of.

        Raises InvalidField for too many.
        """
        found = {json.loads(item).get("id"): item for item in earlier}
        responses = state.responses_of(name for name in named if name not in found)
        if len(responses) > _MOST_NAMED:
            raise InvalidField(f"items of at most {_MOST_NAMED} responses; use previous_response_id", param="input")
        for response_id in responses:
            try:
                body = json.loads((await self._store.read(account_id, response_id)).body)
                inside = await self._store.input_of(account_id, response_id) if _has_input(named) else []
            except NotFound:
                continue
            found |= {item.get("id"): encode(item) for item in body["output"]}
            found |= {json.loads(item).get("id"): item for item in inside}
        return found

    async def counted(self, given: Body, caller: Caller) -> tuple[Body, int]:
        """Return a body whose tokens are counted, with what it goes on from, and how many items that is.

        Raises as `begin`.
        """
        wish = _wished(given)
        conversation = wish.conversation_id
        if not wish.previous_response_id and not conversation:
            return given, 0
        who = await self._admission.identify(caller.key)
        found = await self._store.prepare(
            who.account_id, wish.previous_response_id or "", stores=False, conversation_id=conversation
        )
        if not found.items:
            return given, 0
        return Body.of(state.merged(given.take(), found.items), given.content_type), len(found.items)


def _wished(given: Body) -> state.Wish:
    """Return what a body says of what is stored; its bytes are JSON by the letter from then on, if they can be read.

    Raises Malformed.
    """
    exact = state.strictly(given.peek())
    if exact is not None:
        given.replace(exact)
    return state.wished(given.peek())


def _has_input(named: Sequence[str]) -> bool:
    """Return whether items of a response's input are among those that are named."""
    return any("_in" in name for name in named)


def _refuse_unstored(wish: state.Wish) -> NoReturn:
    """Raise for a response that is to be made in the background or in a conversation, and cannot be stored."""
    where = "background" if wish.background else "conversation"
    if wish.store is False:
        raise InvalidField(f"store: what has {where} is stored; leave store: false out", param="store")
    raise TooLarge(f"{where}: a body may have {state.MOST_STORED_BYTES:,} bytes then", param=where)


def page(items: Sequence[bytes], *, limit: int, order: str, after: str) -> tuple[list[state.Json], bool]:
    """Return one page of items, and whether there are more behind it. Raises InvalidField for an unknown `after`."""
    found = [json.loads(item) for item in items]
    if order != "asc":
        found.reverse()
    if after:
        places = [number for number, item in enumerate(found) if item.get("id") == after]
        if not places:
            raise InvalidField("after: there is no such item", param="after")
        found = found[places[0] + 1 :]
    return found[:limit], len(found) > limit
