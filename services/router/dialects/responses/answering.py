"""From the contract's events to a response of the Responses API, whole or as its events."""

from __future__ import annotations

import time
from typing import Any, Final, TypeVar

import msgspec

from moa.common.v1 import error_pb2, usage_pb2
from moa.common.v1.error_pb2 import Reason
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import vendor_fields
from services.common.dialects import RESPONSES
from services.common.errors import MoaError, error_of
from services.router.dialects.reply import encode
from services.router.dialects.responses.asked import OWN, VENDOR
from services.router.dialects.responses.echo import Echo
from services.router.dialects.responses.output import Call, Item, Json, Message, Reasoning
from services.router.dialects.responses.painting import Sign, Step
from services.router.dialects.responses.picture import Picture, tool_usage
from services.router.dialects.responses.standing import UNSTORED, Making, Standing
from services.router.operations.text import TextAnswer

_ItemT = TypeVar("_ItemT", bound=Item)

_INCOMPLETE: Final = {
    text_pb2.FINISH_REASON_LENGTH: "max_output_tokens",
    text_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
_CODES: Final = {
    error_pb2.REASON_RATE_LIMITED: "rate_limit_exceeded",
    error_pb2.REASON_UPSTREAM_RATE_LIMITED: "rate_limit_exceeded",
    error_pb2.REASON_CONTENT_POLICY: "invalid_prompt",
}
"""What a failed response can say; whatever it has no word for is the server's error."""


def usage_of(usage: usage_pb2.Usage) -> Json:
    """Return the usage as the Responses API writes it."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def failure_code(reason: Reason.ValueType) -> str:
    """Return the code of a failed response."""
    return _CODES.get(reason, "server_error")


def frame(kind: str, fields: Json) -> bytes:
    """Return one named server-sent event."""
    return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **fields}) + b"\n\n"


class Response:
    """One response under way.

    Args:
        model: Who answers.
        request_id: The request's, of which the response's and its items' ids are made.
        echo: What it says of its request.
        streams: Whether events are rendered.
        standing: What it says of what is stored. Where it is, its last event is rendered when it is asked for (`end`).
        making: Under which ids and numbers it is made; None: the request's.
    """

    def __init__(
        self,
        model: str,
        request_id: str,
        echo: Echo,
        *,
        streams: bool,
        standing: Standing = UNSTORED,
        making: Making | None = None,
    ) -> None:
        making = making or Making.first(request_id)
        self._model = model
        self.answer_id, self._item_id = making.answer_id, making.item_id
        self._standing = standing
        self.status = "in_progress"
        """Where it is; what it came to once it is over."""
        self._echo, self._summary, self._spaces = echo
        self._streams = streams
        self._created = making.created
        self._ended = 0
        self._frames: list[bytes] = []
        self._sequence = making.first_sequence
        self._next = 0
        """The place of the next item."""
        self._done: dict[int, Json] = {}
        """The items that are over, by their places."""
        self._open: Reasoning | Message | None = None
        """What is being said or thought."""
        self._own: dict[Any, tuple[int, Json]] = {}
        """Items of kinds that only OpenAI knows which are under way, by their place there: its place here, and it."""
        self._picture: Picture | None = None
        """The picture that is being made."""
        self._calls: dict[int, Call] = {}
        """Calls that have begun; their pieces may interleave."""
        self._why = ""
        """Why the response is not complete."""
        self._beside: Json = {}
        self._failure: Json | None = None
        self._usage: Json | None = None
        self._text_head = b""
        """What stands before the number of an event with text."""

    def answered_by(self, model: str, standing: Standing = UNSTORED) -> None:
        """Note who answers, and what is stored."""
        self._model, self._standing = model, standing

    @property
    def id(self) -> str:
        """Its id."""
        return f"resp_{self.answer_id}"

    @property
    def is_over(self) -> bool:
        """Whether nothing is added to it any more."""
        return self.status != "in_progress"

    # What is read of it.

    def begin(self) -> bytes:
        """Return the events with which it begins."""
        for kind in ("response.created", "response.in_progress"):
            self._tell_whole(kind, "in_progress")
        return self._take_frames()

    def of(self, message: text_service_pb2.GenerateTextResponse | Step | Sign) -> bytes:
        """Take a message in; return its events. Raises MoaError for a failure, where nothing is streamed."""
        for event in message.events:
            if isinstance(event, Step):
                self._take_step(event)
            else:
                self.take(event)
        return self._take_frames()

    def take(self, event: text_pb2.TextEvent) -> None:
        """Take one event in. Raises as `of`."""
        kind = event.WhichOneof("event")
        carries = event.HasField("vendor")
        if carries and kind in (None, "candidate_finished"):
            self._take_vendor(event, kind)
        if kind == "text":
            self._take_text(event.text)
        elif kind == "reasoning":
            self._take_reasoning(event.reasoning)
        elif kind == "tool_call":
            self._take_call(event.tool_call)
        elif kind == "candidate_finished":
            self._take_end(event.candidate_finished)
        elif kind == "started":
            # Another model goes on.
            self._model = event.started.model
        elif kind == "finished":
            self._usage = usage_of(event.finished.usage)
            vendor_fields.merge(self._usage, self._beside.pop("usage", {}))
            self._end("incomplete" if self._why else "completed")
        elif kind == "error":
            error = error_of(event.error)
            if not self._streams and "tool_usage" not in self._beside:
                raise error
            # Pictures that were made are the caller's all the same.
            self._fail(error)
        if carries and kind not in (None, "candidate_finished"):
            self._take_vendor(event, kind)

    def broken(self, error: MoaError) -> bytes:
        """Return the events of a response that failed before it began."""
        self._standing = self._standing._replace(store=False)
        head = self.begin()
        self._fail(error)
        return head + self._take_frames()

    def fail(self, error: MoaError) -> None:
        """Note that it failed; its last event is rendered when it is asked for, where it is stored."""
        self._fail(error)

    def so_far(self, status: str = "in_progress") -> bytes:
        """Return the response as it stands before its end."""
        return self._object(status)

    def end(self, *, stored: bool = True) -> bytes:
        """Return the last event of a response that is over and was to be stored; once more where it was not."""
        if not self._streams:
            return b""
        if not stored:
            self._standing = self._standing._replace(store=False)
            self._sequence -= 1
        self._tell_whole(f"response.{self.status}", self.status)
        return self._take_frames()

    def whole(self, *, stored: bool = True) -> bytes:
        """Return the response, once its last message was taken in."""
        if not stored:
            self._standing = self._standing._replace(store=False)
        return self._object(self.status)

    # How it grows.

    def _take_text(self, delta: text_pb2.TextDelta) -> None:
        item = self._open
        if isinstance(item, Message) and item.text and not delta.logprobs:
            # By far the commonest event: one concatenation around its JSON string.
            item.text.append(delta.text)
            if self._streams:
                text = encode(delta.text)
                self._frames.append(b'%b%d,"delta":%b,"logprobs":[]}\n\n' % (self._text_head, self._sequence, text))
                self._sequence += 1
            return
        if delta.text or delta.logprobs:
            self._message().add(delta.text, delta.logprobs)

    def _take_reasoning(self, delta: text_pb2.ReasoningDelta) -> None:
        item = self._open
        if not isinstance(item, Reasoning):
            if not delta.text and not delta.signature:
                return
            self._end_open()
            item = self._begun(Reasoning(self._next, self._item_id, self._tell, is_summary=bool(self._summary)))
            self._open = item
        if delta.text:
            item.add(delta.text)
        if delta.signature:
            # It proves what came before it.
            item.sign(delta.signature, delta.signer)
            self._end_open()

    def _take_call(self, piece: text_pb2.ToolCallDelta) -> None:
        call = self._calls.get(piece.call_index)
        if call is None:
            self._end_open()
            call = self._begun(Call(self._next, self._item_id, self._tell, piece, self._spaces.get(piece.name)))
            self._calls[piece.call_index] = call
        call.add(piece.arguments_json)

    def _take_end(self, ended: text_pb2.CandidateFinished) -> None:
        self._why = _INCOMPLETE.get(ended.reason, "")
        if ended.refusal:
            self._message().refuse(ended.refusal)
        status = "incomplete" if self._why else "completed"
        self._end_open(status)
        for place, (_, item) in list(self._own.items()):
            self._end_own(place, {**item, "status": "failed"})
        for call in self._calls.values():
            self._done[call.index] = call.end(status)
        self._calls.clear()

    def _take_step(self, step: Step) -> None:
        """Take in what happened to a picture that the model has made."""
        if self._picture is None:
            self._end_open()
            self._picture = self._begun(Picture(self._next, self._item_id, self._tell))
        if step.kind == "generating":
            self._picture.generating()
        elif step.kind == "partial":
            self._picture.partial(step.fields or {})
        elif step.kind != "begun":
            made = self._picture.made(step.fields or {}) if step.error is None else self._picture.failed(step.error)
            self._done[self._picture.index] = made
            self._picture = None
            if step.usage is not None:
                self._beside["tool_usage"] = tool_usage(step.usage)

    def _message(self) -> Message:
        if isinstance(self._open, Message):
            return self._open
        self._end_open()
        item = self._begun(Message(self._next, self._item_id, self._tell))
        self._open = item
        kind = b"response.output_text.delta"
        place = b'"item_id":"%b","output_index":%d,"content_index":0' % (item.id.encode(), item.index)
        self._text_head = b'event: %b\ndata: {"type":"%b",%b,"sequence_number":' % (kind, kind, place)
        return item

    def _begun(self, item: _ItemT) -> _ItemT:
        self._next += 1
        item.begin()
        return item

    def _end_open(self, status: str = "completed") -> None:
        if self._open is not None:
            self._done[self._open.index] = self._open.end(status)
            self._open = None

    def _take_vendor(self, event: text_pb2.TextEvent, kind: str | None) -> None:
        """Take in fields of the vendor's own: of the answer, of what is said, or of a call."""
        fields = vendor_fields.fields_of(event.vendor, VENDOR)
        for name in ("answer", "choice"):
            vendor_fields.go_on(self._beside, fields.get(name, {}))
        own = fields.get(OWN)
        if isinstance(own, dict):
            self._take_own(own)
        message, call = fields.get("message"), fields.get("call")
        if isinstance(message, dict):
            item = self._open if kind in ("reasoning", "tool_call") else self._message()
            if isinstance(item, Message):
                item.annotate(message.pop("annotations", None))
            if item is not None:
                vendor_fields.go_on(item.beside, message)
        if isinstance(call, dict) and kind == "tool_call":
            vendor_fields.go_on(self._calls[event.tool_call.call_index].beside, call)

    def _take_own(self, own: Json) -> None:
        """Take in what is told of an item of a kind that only OpenAI knows: that it begins, goes on, or all of it."""
        place = own.get("place")
        item, event = own.get("item") or own.get("added"), own.get("event")
        if isinstance(item, dict):
            if place not in self._own or place is None:
                self._end_open()
                self._own[place] = (self._next, item)
                self._tell("response.output_item.added", output_index=self._next, item=item)
                self._next += 1
            if "item" in own:
                self._end_own(place, item)
        elif isinstance(event, dict) and place in self._own:
            known = {"type", "output_index", "sequence_number"}
            fields = {name: value for name, value in event.items() if name not in known}
            self._tell(str(event.get("type")), output_index=self._own[place][0], **fields)

    def _end_own(self, place: Any, item: Json) -> None:
        index, _ = self._own.pop(place)
        self._done[index] = item
        self._tell("response.output_item.done", output_index=index, item=item)

    # How it is written.

    def _fail(self, error: MoaError) -> None:
        rendered = RESPONSES.render(error)["error"]
        self._failure = {**rendered, "code": failure_code(error.reason)}
        self._end("failed")

    def _end(self, status: str) -> None:
        self.status = status
        if not self._standing.store:
            self._tell_whole(f"response.{status}", status)

    def _tell(self, kind: str, /, **fields: Any) -> None:
        if self._streams:
            self._frames.append(frame(kind, {"sequence_number": self._sequence, **fields}))
            self._sequence += 1

    def _tell_whole(self, kind: str, status: str) -> None:
        if self._streams:
            self._tell(kind, response=msgspec.Raw(self._object(status)))

    def _take_frames(self) -> bytes:
        made = b"".join(self._frames)
        self._frames.clear()
        return made

    def _completed_at(self, status: str) -> int | None:
        if status != "completed":
            return None
        # One time, however often it is written.
        self._ended = self._ended or int(time.time())
        return self._ended

    def _object(self, status: str) -> bytes:
        """Return the response as it stands."""
        beside = dict(self._beside)
        made: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "completed_at": self._completed_at(status),
            "error": self._failure or beside.pop("error", None),
            "incomplete_details": {"reason": self._why} if status == "incomplete" else None,
            "model": beside.pop("model", self._model),
            "output": [self._done[index] for index in sorted(self._done)],
            "service_tier": beside.pop("service_tier", None),
            "usage": self._usage,
            **self._standing._asdict(),
        }
        beside.pop("usage", None)
        vendor_fields.merge(made, beside)
        return encode(made)[:-1] + b"," + self._echo[1:]


async def drained(
    answer: TextAnswer, request_id: str, echo: Echo, standing: Standing = UNSTORED, making: Making | None = None
) -> Response:
    """Drain the answer to one response. Raises MoaError when it failed."""
    response = Response(answer.model.id, request_id, echo, streams=False, standing=standing, making=making)
    while (message := await answer.next()) is not None:
        response.of(message)
    return response
