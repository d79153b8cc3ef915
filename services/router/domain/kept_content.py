"""What of a request and its answer a log keeps: the beginning of both, without the bytes of pictures and files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest, GenerateImageResponse
from moa.requestlog.v1 import request_log_pb2 as pb
from moa.text.v1.text_service_pb2 import GenerateTextRequest, GenerateTextResponse

MOST_BYTES: Final = 128 * 1024
"""Of a request, and of an answer, as much is kept, about."""
_INLINE_BYTES: Final = 64
"""Shorter byte strings are no pictures: they are kept."""
_FIELD_BYTES: Final = 8
"""What a field takes beside its value, about."""
_MESSAGE_BYTES: Final = 64
"""What a message takes beside its fields: of very many small ones the first are kept, too."""
_REQUESTS: Final = {
    GenerateTextRequest: "text_request",
    GenerateImageRequest: "image_request",
    EmbedTextsRequest: "embedding_request",
}
_ANSWERS: Final = {GenerateTextResponse: "text_answer", GenerateImageResponse: "image_answer"}
_KEPT_KINDS: Final = frozenset(("text", "reasoning", "tool_call", "candidate_finished", "image", "finished", "error"))
"""Kinds of events that are part of an answer, rather than of its making."""
_JOINED: Final = {"text": "text", "reasoning": "text", "tool_call": "arguments_json"}
"""Kinds of events that come in pieces, and the field of a piece that goes on in the next."""


def content_of(request: Message, messages: Iterable[Any], *, cut: bool = False) -> pb.Content:
    """Return what is kept of a request and of the messages of its answer.

    `cut`: the answer went on behind these messages. Takes moments for what is large: call it off the loop.
    """
    content = pb.Content()
    copying = _Copying(content, MOST_BYTES)
    if (name := _REQUESTS.get(type(request))) is not None:
        kept = getattr(content, name)
        kept.SetInParent()
        copying.fields(request, kept, "request")
        content.request_truncated = copying.truncated
    copying = _Copying(content, MOST_BYTES)
    answer = None
    for event in _joined(messages, copying):
        if answer is None:
            answer = getattr(content, event.name).events
        copying.fields(event.first, answer.add(), "answer")
        if event.pieces is not None and not copying.truncated:
            part = getattr(answer[-1], event.kind)
            setattr(part, _JOINED[event.kind], copying.text("".join(event.pieces)))
    content.answer_truncated = copying.truncated or cut
    return content


class _Event:
    """An event of an answer, with those that only go on with it."""

    __slots__ = ("first", "kind", "name", "pieces")

    def __init__(self, name: str, kind: str, first: Any, pieces: list[str] | None) -> None:
        self.name = name
        """The answer's field of `Content`."""
        self.kind = kind
        self.first = first
        """Without what goes on in `pieces`."""
        self.pieces = pieces


class _Copying:
    """Copies fields of messages until so many bytes are copied."""

    def __init__(self, content: pb.Content, most: int) -> None:
        self._content = content
        self._left = most
        self.truncated = False

    def fields(self, given: Message, target: Any, path: str) -> None:
        """Copy what a message has, in the order of its fields."""
        self._left -= _MESSAGE_BYTES
        for field, value in given.ListFields():
            if self._left <= 0:
                self.truncated = True
                return
            self._left -= _FIELD_BYTES
            self._field(field, value, target, f"{path}.{field.name}")

    def _field(self, field: FieldDescriptor, value: Any, target: Any, path: str) -> None:
        kind, name = field.type, field.name
        if not field.is_repeated:
            if kind == FieldDescriptor.TYPE_MESSAGE:
                part = getattr(target, name)
                part.SetInParent()
                self.fields(value, part, path)
            elif kind == FieldDescriptor.TYPE_STRING:
                setattr(target, name, self.text(value))
            elif kind == FieldDescriptor.TYPE_BYTES:
                if (data := self._bytes(value, path)) is not None:
                    setattr(target, name, data)
            else:
                setattr(target, name, value)
        elif (of := field.message_type) is not None and of.GetOptions().map_entry:
            self._left -= sum(_FIELD_BYTES + len(str(key)) for key in value)
            getattr(target, name).MergeFrom(value) if self._left > 0 else self._stop()
        else:
            self._items(kind, value, getattr(target, name), path)

    def _items(self, kind: int, values: Any, target: Any, path: str) -> None:
        for number, value in enumerate(values):
            if self._left <= 0:
                self._stop()
                return
            if kind == FieldDescriptor.TYPE_MESSAGE:
                self.fields(value, target.add(), f"{path}[{number}]")
            elif kind == FieldDescriptor.TYPE_STRING:
                self._left -= _FIELD_BYTES
                target.append(self.text(value))
            elif kind == FieldDescriptor.TYPE_BYTES:
                self._left -= _FIELD_BYTES
                target.append(self._bytes(value, f"{path}[{number}]") or b"")
            else:
                self._left -= _FIELD_BYTES
                target.append(value)

    def text(self, value: str) -> str:
        """Return as much of a text as there is room for."""
        if len(value) > self._left:
            self._stop()
            value = value[: max(0, self._left)]
        size = len(value.encode())
        if size > self._left:
            self._stop()
            value = value.encode()[: max(0, self._left)].decode(errors="ignore")
            size = len(value.encode())
        self._left -= size
        return value

    def _bytes(self, value: bytes, path: str) -> bytes | None:
        if len(value) <= _INLINE_BYTES:
            self._left -= len(value)
            return value
        left_out = self._content.left_out.add(path=path, size_bytes=len(value))
        left_out.sha256 = hashlib.sha256(value).hexdigest()
        return None

    def _stop(self) -> None:
        self.truncated = True


def _joined(messages: Iterable[Any], copying: _Copying) -> list[_Event]:
    """Return the events of an answer, those that are pieces of one text as one; none of an answer that is not kept."""
    events: list[_Event] = []
    last: dict[int, tuple[tuple[str, int], _Event]] = {}
    """By candidate, what its latest event may go on with."""
    for message in messages:
        name = _ANSWERS.get(type(message))
        if name is None:
            return []
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind not in _KEPT_KINDS:
                continue
            if kind not in _JOINED or name != "text_answer":
                events.append(_Event(name, kind, event, None))
                continue
            part = getattr(event, kind)
            key = kind, part.call_index if kind == "tool_call" else 0
            piece = getattr(part, _JOINED[kind])
            known, goes_on = last.get(event.candidate, (None, None))
            if goes_on is not None and known == key and goes_on.pieces is not None:
                goes_on.pieces.append(piece)
                continue
            first = type(event)()
            first.CopyFrom(event)
            getattr(first, kind).ClearField(_JOINED[kind])
            if kind == "text":
                first.text.ClearField("logprobs")
            events.append(_Event(name, kind, first, [piece]))
            last[event.candidate] = key, events[-1]
    return events
