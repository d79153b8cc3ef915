"""Turns in which a model had pictures made: as a caller gives them back, and as they are while a response is made.

Towards a model that does not run the tool itself each is a call of a function, and its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from moa.common.v1 import media_pb2
from moa.text.v1 import text_pb2
from services.common import vendor_fields
from services.router.dialects.reply import encode
from services.router.dialects.responses.items import VENDOR, Json
from services.router.dialects.responses.places import Places
from services.router.dialects.results import of_result

KIND: Final = "image_generation_call"
_OF_EVENTS: Final = "openai"
_OWN: Final = "responses"
_SHOWN: Final = "The picture was made and shown to the user."
_NOT_MADE: Final = "The picture could not be made"


def call_id(number: int) -> str:
    """Return the id of a conversation's call: every vendor takes it, and it is the same whenever it is sent."""
    return f"call_moa_image_{number}"


def result_of(number: int, name: str, failure: str = "", *, failed: bool = False) -> text_pb2.Message:
    """Return what a model is told of a picture that it had made, or of why it was not."""
    words = (f"{_NOT_MADE}: {failure}" if failure else f"{_NOT_MADE}.") if failed else _SHOWN
    result = text_pb2.ToolResult(tool_call_id=call_id(number), name=name, content=words, is_error=failed)
    return text_pb2.Message(role=text_pb2.ROLE_TOOL, parts=[text_pb2.Part(tool_result=result)])


def item_in(part: text_pb2.Part) -> Json | None:
    """Return the picture that was made in an earlier turn, where a part is one."""
    if part.WhichOneof("part") not in (None, "image") or part.vendor.vendor != VENDOR:
        return None
    item: Any = vendor_fields.fields_of(part.vendor, VENDOR).get("item")
    return item if isinstance(item, dict) and item.get("type") == KIND else None


class Shown:
    """A conversation whose pictures are calls of a function.

    Args:
        name: The function's.
        shows: Whether its model is shown them too.
    """

    def __init__(self, name: str, *, shows: bool) -> None:
        self._name = name
        self._shows = shows
        self.messages: list[text_pb2.Message] = []
        self.places: list[Sequence[str]] = []
        self.count = 0
        """How many pictures were made."""
        self.pictures: list[media_pb2.ImageInput] = []
        """All pictures, in order: the caller's, and those that were made."""

    def add(self, message: text_pb2.Message, places: Sequence[str]) -> None:
        """Add a turn."""
        items = [item_in(part) for part in message.parts]
        if not any(items):
            self.pictures += [part.image for part in message.parts if part.HasField("image")]
            self._put(message, places)
            return
        turn = self._begun(message)
        where: list[str] = []
        results: list[tuple[text_pb2.Message, str]] = []
        for part, item, place in zip(message.parts, items, _padded(places, len(message.parts)), strict=True):
            if item is not None:
                turn.parts.append(self._called(item))
                results += [(each, place) for each in self._results(part)]
            else:
                if results and part.WhichOneof("part") != "tool_call" and not _has_others(turn, self._name):
                    self._close(turn, where, results)
                    turn, where, results = self._begun(message), [], []
                turn.parts.append(part)
            where.append(place)
        self._close(turn, where, results)

    @staticmethod
    def _begun(message: text_pb2.Message) -> text_pb2.Message:
        return text_pb2.Message(role=message.role, name=message.name)

    def _close(
        self, turn: text_pb2.Message, where: Sequence[str], results: Sequence[tuple[text_pb2.Message, str]]
    ) -> None:
        if turn.parts:
            self._put(turn, where)
        for message, place in results:
            self._put(message, [place] * len(message.parts))

    def _put(self, message: text_pb2.Message, places: Sequence[str]) -> None:
        self.messages.append(message)
        self.places.append(places)

    def _called(self, item: Json) -> text_pb2.Part:
        self.count += 1
        words = encode({"prompt": str(item.get("revised_prompt") or "")}).decode()
        return text_pb2.Part(tool_call=text_pb2.ToolCall(id=call_id(self.count), name=self._name, arguments_json=words))

    def _results(self, made: text_pb2.Part) -> list[text_pb2.Message]:
        if not made.HasField("image"):
            return [result_of(self.count, self._name, failed=True)]
        results = [result_of(self.count, self._name)]
        self.pictures.append(made.image)
        if self._shows:
            parts = [text_pb2.Part(text=of_result(call_id(self.count))), text_pb2.Part(image=made.image)]
            results.append(text_pb2.Message(role=text_pb2.ROLE_USER, parts=parts))
        return results


def shown(messages: Sequence[text_pb2.Message], places: Places, name: str, *, shows: bool) -> Shown:
    """Return a conversation whose pictures are calls of the function `name`."""
    made = Shown(name, shows=shows)
    for message, where in zip(messages, _padded(places, len(messages), ()), strict=True):
        made.add(message, where)
    return made


def _padded(given: Sequence[Any], length: int, last: Any = "input") -> list[Any]:
    """Return as many places as there are things."""
    return [*given, *[given[-1] if given else last] * (length - len(given))][:length]


def _has_others(turn: text_pb2.Message, name: str) -> bool:
    """Return whether a turn calls other functions, whose results must follow it."""
    return any(part.HasField("tool_call") and part.tool_call.name != name for part in turn.parts)


class Turn:
    """What a model says in one round, gathered so that it can be given back.

    Args:
        name: The function by which it has pictures made.
        count: How many were made before.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._parts: list[text_pb2.Part] = []
        self._of_call: dict[int, text_pb2.ToolCall] = {}
        self.calls: dict[int, text_pb2.ToolCall] = {}
        """The calls for pictures, by their index."""

    @property
    def calls_others(self) -> bool:
        """Whether functions of the caller's are called."""
        return len(self._of_call) > len(self.calls)

    def saw(self, event: text_pb2.TextEvent) -> bool:
        """Take an event in; return whether its caller is told of it: not of calls for pictures."""
        kind = event.WhichOneof("event")
        if kind == "text":
            self._last("text").text += event.text.text
        elif kind == "reasoning":
            self._think(event.reasoning)
        elif kind == "tool_call":
            return self._call(event.tool_call)
        elif kind is None:
            own: Any = vendor_fields.fields_of(event.vendor, _OF_EVENTS).get(_OWN)
            if isinstance(own, dict) and isinstance(own.get("item"), dict):
                self._parts.append(text_pb2.Part(vendor=vendor_fields.envelope(VENDOR, {"item": own["item"]})))
        return True

    def message(self) -> text_pb2.Message:
        """Return the turn."""
        kept = [part for part in self._parts if part.text or part.WhichOneof("part") != "text"]
        return text_pb2.Message(role=text_pb2.ROLE_ASSISTANT, parts=kept)

    def _last(self, kind: str) -> text_pb2.Part:
        if not self._parts or self._parts[-1].WhichOneof("part") != kind:
            self._parts.append(text_pb2.Part(text="") if kind == "text" else text_pb2.Part())
        return self._parts[-1]

    def _think(self, delta: text_pb2.ReasoningDelta) -> None:
        last = self._parts[-1] if self._parts else None
        if last is None or not last.HasField("reasoning") or last.reasoning.signature:
            last = text_pb2.Part(reasoning=text_pb2.ReasoningPart())
            self._parts.append(last)
        last.reasoning.text += delta.text
        if delta.signature:
            last.reasoning.signature += delta.signature
            last.reasoning.signer = delta.signer

    def _call(self, piece: text_pb2.ToolCallDelta) -> bool:
        call = self._of_call.get(piece.call_index)
        if call is None:
            part = text_pb2.Part(tool_call=text_pb2.ToolCall(id=piece.id, name=piece.name, custom=piece.custom))
            self._parts.append(part)
            call = self._of_call[piece.call_index] = part.tool_call
            if piece.name == self._name:
                self.calls[piece.call_index] = call
                call.id = call_id(self._count + len(self.calls))
        call.arguments_json += piece.arguments_json
        if piece.signature:
            call.signature, call.signer = piece.signature, piece.signer
        return piece.call_index not in self.calls
