"""A response whose model has pictures made: rounds of the chat, with the pictures that it calls for between them.

Each round and each picture is an operation of its own: its model is permitted, its reservation lent and settled, as if
its caller had asked for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from msgspec.structs import replace

from moa.common.v1 import media_pb2, usage_pb2
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest, GenerateTextResponse
from services.catalogue import Model, Retirement
from services.common.errors import MoaError, detail_of
from services.common.rpc import call as calls
from services.router.dialects.responses.painting import Painting, Sign, Step, summed
from services.router.dialects.responses.picture_tool import Offer, arguments_of
from services.router.dialects.responses.picture_turns import Turn, result_of
from services.router.domain.answer import OnSettled
from services.router.domain.attempts import Attempts
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.domain.ports import Reservation
from services.router.operations.text import TextAnswer, TextCall
from services.router.serving import note

MOST_ROUNDS: Final = 10
"""How often the chat's model is asked for one response, at most."""
_SUMMED: Final = ("tokens", "cost_usd")
_GOES_ON: Final = (text_pb2.FINISH_REASON_TOOL_CALLS, text_pb2.FINISH_REASON_STOP)
_FORCING: Final = (text_pb2.ToolChoice.MODE_NAMED, text_pb2.ToolChoice.MODE_REQUIRED)
_UNREADABLE: Final = "the arguments are not those of the tool"
_ENOUGH: Final = "this answer may have no more pictures"


class Rounds:
    """The messages of such a response: an answer of text whose messages may be steps of pictures.

    Args:
        request: The first round's request. It is changed: later rounds go on from it.
        answer: Its answer, begun.
        number: How many pictures the conversation has already.
        pictures: All pictures of the conversation.
    """

    def __init__(
        self,
        operations: Operations,
        caller: Caller,
        offer: Offer,
        request: GenerateTextRequest,
        answer: TextAnswer,
        *,
        number: int,
        pictures: list[media_pb2.ImageInput],
    ) -> None:
        self._operations, self._caller, self._offer, self._request = operations, caller, offer, request
        self._answer = answer
        self._streams = request.stream
        self._number = number
        self._pictures = pictures
        self._turn = Turn(offer.name, number)
        self._queue: list[tuple[int, text_pb2.ToolCall]] = []
        """The calls for pictures that are not tried yet, each by its number."""
        self._results: list[text_pb2.Message] = []
        self._painting: Painting | None = None
        self._open: list[Painting] = []
        """Pictures that are not written to the caller yet."""
        self._ending: text_pb2.CandidateFinished | None = None
        """How a round ended that called for pictures."""
        self._ended = self._over = self._is_inside = False
        self._current = 0
        """The number of the picture that is being made."""
        self._rounds = 1
        self._made = 0
        self._usage = usage_pb2.Usage()
        """Of the rounds before this one."""
        self._image_usage = usage_pb2.Usage()

    # As an answer has them.

    @property
    def model(self) -> Model:
        """Who answers."""
        return self._answer.model

    @property
    def asked(self) -> Model:
        """Who was asked for."""
        return self._answer.asked

    @property
    def route(self) -> str:
        """The virtual model that was asked for; empty where it was none."""
        return self._answer.route

    @property
    def ending(self) -> Retirement | None:
        """The retirement of the model that was asked for."""
        return self._answer.ending

    @property
    def ignored(self) -> Sequence[str]:
        """Fields of the request without effect."""
        return [*self._answer.ignored, *self._offer.ignored]

    @property
    def attempts(self) -> Attempts[GenerateTextResponse]:
        """Who was asked."""
        return self._answer.attempts

    @property
    def reservation(self) -> Reservation:
        """What pays for the chat."""
        return self._answer.reservation

    @property
    def usage(self) -> usage_pb2.Usage:
        """What the chat's rounds have consumed together."""
        return summed(self._usage, self._answer.usage)

    @property
    def images(self) -> int:
        """How many pictures were made."""
        return self._made

    @property
    def on_settled(self) -> OnSettled:
        """Told what this round was charged."""
        return self._answer.on_settled

    @on_settled.setter
    def on_settled(self, listener: OnSettled) -> None:
        self._answer.on_settled = _adding(listener)

    @property
    def on_broken(self) -> Callable[[MoaError], None]:
        """Told of a failure after this round's first event."""
        return self._answer.on_broken

    @on_broken.setter
    def on_broken(self, listener: Callable[[MoaError], None]) -> None:
        self._answer.on_broken = listener

    async def next(self) -> GenerateTextResponse | Step | Sign | None:
        """Return the next message, whose events are the chat's or a picture's; None after the last."""
        if self._streams:
            await self.written()
        while not self._over:
            if self._painting is not None:
                if (step := await self._painting.next()) is not None:
                    return step
                self._take_painting(self._painting)
            elif self._queue:
                self._begin_painting(*self._queue.pop(0))
            elif self._ended:
                return await self._after()
            else:
                message = await self._answer.next()
                if message is None:
                    self._over = True
                    break
                return self._taken(message)
        return None

    def delivered(self, count: int) -> None:
        """Note that all pictures have been written to the caller."""
        for painting in self._open:
            painting.delivered()

    async def written(self) -> None:
        """Let go of the pictures, which have been written to the caller."""
        done = [each for each in self._open if each is not self._painting]
        for painting in done:
            painting.delivered()
            self._open.remove(painting)
            await painting.close()

    # A round.

    def _taken(self, message: GenerateTextResponse) -> GenerateTextResponse:
        """Take a message of the chat's in; return what its caller is told of it."""
        shown: list[text_pb2.TextEvent] = []
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "candidate_finished" and self._turn.calls:
                self._ending = event.candidate_finished
            elif kind == "finished" and self._turn.calls:
                self._end_round()
            elif kind == "finished":
                shown.append(self._finished(event.finished))
            elif self._turn.saw(event):
                shown.append(event)
        if len(shown) == len(message.events) and self._rounds == 1:
            return message
        return GenerateTextResponse(events=shown)

    def _end_round(self) -> None:
        """Note that a round has ended which called for pictures."""
        self._ended = True
        for call in self._turn.calls.values():
            self._number += 1
            self._queue.append((self._number, call))

    def _begin_painting(self, number: int, call: text_pb2.ToolCall) -> None:
        arguments = arguments_of(call.arguments_json)
        refusal = ""
        if arguments is None:
            refusal = _UNREADABLE
        elif self._made >= self._offer.most:
            refusal = _ENOUGH
        if arguments is None or refusal:
            self._results.append(result_of(number, self._offer.name, refusal, failed=True))
            return
        self._painting = Painting(
            self._operations, self._caller, self._offer, arguments, self._pictures, self._image_usage
        )
        self._open.append(self._painting)
        self._current = number

    def _take_painting(self, painting: Painting) -> None:
        self._painting = None
        self._made += painting.is_made
        failed = not painting.is_made
        self._results.append(result_of(self._current, self._offer.name, painting.failure, failed=failed))

    async def _after(self) -> GenerateTextResponse:
        """Return what follows the pictures of a round: the next one's first message, or the end."""
        self._ended = False
        ending = self._ending or text_pb2.CandidateFinished(reason=text_pb2.FINISH_REASON_STOP)
        if self._left() == 0:
            ending = text_pb2.CandidateFinished(reason=text_pb2.FINISH_REASON_LENGTH)
        if self._turn.calls_others or ending.reason not in _GOES_ON or self._rounds >= MOST_ROUNDS:
            self._over = True
            finished = text_pb2.Finished(usage=self.usage)
            events = [text_pb2.TextEvent(candidate_finished=ending), text_pb2.TextEvent(finished=finished)]
            return GenerateTextResponse(events=events)
        try:
            await self._begin_round()
        except MoaError as error:
            # What was made before is the caller's: it is the response's, which failed.
            self._over = True
            detail = detail_of(error, self._caller.request_id)
            return GenerateTextResponse(events=[text_pb2.TextEvent(error=detail)])
        return GenerateTextResponse()

    async def _begin_round(self) -> None:
        """Ask the chat's model again, who is told what has become of its calls. Raises MoaError."""
        self._is_inside = False
        await self._answer.__aexit__(None, None, None)
        request = self._request
        request.messages.append(self._turn.message())
        request.messages.extend(self._results)
        self._results, self._ending = [], None
        if request.tool_choice.mode in _FORCING:
            # It was called.
            request.tool_choice.mode = text_pb2.ToolChoice.MODE_AUTO
            request.tool_choice.ClearField("name")
        asked = GenerateTextRequest()
        asked.CopyFrom(request)
        if (left := self._left()) is not None:
            asked.max_tokens = left
        caller = replace(self._caller, began=time.perf_counter())
        answer = await self._operations.begin(TextCall(asked), caller)
        self._usage = self.usage
        self._rounds += 1
        self._turn = Turn(self._offer.name, self._number)
        self._answer = answer
        await self._enter()
        note(answer, caller)
        answer.on_settled = _adding(answer.on_settled)

    def _left(self) -> int | None:
        """Return how many tokens the answer may still have; None where nobody bounded it."""
        if not self._request.HasField("max_tokens"):
            return None
        return max(0, self._request.max_tokens - self.usage.completion_tokens)

    async def _enter(self) -> None:
        await self._answer.__aenter__()
        self._is_inside = True

    def _finished(self, finished: text_pb2.Finished) -> text_pb2.TextEvent:
        return text_pb2.TextEvent(finished=text_pb2.Finished(usage=summed(self._usage, finished.usage)))

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._open = self._open, []
        try:
            for painting in opened:
                await painting.close(kind, error, trace)
        finally:
            if self._is_inside:
                await self._answer.__aexit__(kind, error, trace)


def _adding(settled: OnSettled) -> OnSettled:
    """Have what a round comes to added to what is on the call's log line."""

    def added(consumed: usage_pb2.Usage) -> None:
        fields: dict[str, Any] = calls.current().fields
        before = {name: fields.pop(name, 0) for name in _SUMMED}
        settled(consumed)
        for name, value in before.items():
            if value:
                fields[name] = fields.get(name, 0) + value

    return added
