"""`moa.text.v1.TextService` over the models of one's own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final

from inference.catalogued import find
from inference.fair import Flow
from inference.heartbeat import EngineHeartbeat
from inference.job import Failed
from inference.mailbox import Mailbox
from inference.registry import Registry
from inference.shared_thread import SharedThread
from inference.text import events as kinds
from inference.text.answer import Score
from inference.text.ask import TextAsk, ask_from
from inference.text.events import Counted, Event
from inference.text.tools import tools_from
from inference.text.turns import Turn, turns_from
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.catalogue import Model, Watched
from services.common import limits, tracing
from services.common.errors import detail_of, error_of
from services.common.metering import TextMeter
from services.common.rpc import call as calls
from services.common.rpc.whole import whole_text
from services.quota_client import AbandonedCalls

if TYPE_CHECKING:  # the engine imports torch, which must not delay the port
    from inference.text.engine import TextEngine


PART: Final = 256
"""Events of an answer that is wanted whole which are told together: whoever pays for it sees how far it has come."""


class TextServicer(text_service_pb2_grpc.TextServiceServicer):
    """Answers with catalogue models that this process loads.

    Args:
        catalogue: Which models there are.
        registry: Loads them.
        workers: Where schemas are compiled.
        reading: Where prompts are tokenized.
        abandoned: Books what callers may have died before booking; None: nobody does.
    """

    def __init__(
        self,
        catalogue: Watched,
        registry: Registry,
        workers: Executor,
        reading: SharedThread,
        abandoned: AbandonedCalls | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._workers = workers
        self._reading = reading
        self._abandoned = abandoned

    async def GenerateText(  # type: ignore[override]  # a coroutine that writes, not a generator
        self, request: text_service_pb2.GenerateTextRequest, context: Any
    ) -> None:
        """Answer a conversation as a stream; the caller's leaving ends the work at the next token.

        A message without events is a sign of life: the model is being loaded, or its engine works.
        """
        model = find(self._catalogue, request.model, request.provider, "text")
        ask = ask_from(request, model)
        stages = tracing.Stages()
        stages.begin("load model")
        try:
            async with (
                EngineHeartbeat(context, text_service_pb2.GenerateTextResponse()) as heartbeat,
                self._registry.use(model) as e,
            ):
                engine: TextEngine = e  # type: ignore[assignment]
                await self._generate(engine, ask, model, request.stream, stages, context, heartbeat)
        finally:
            stages.end()

    async def _generate(
        self,
        engine: TextEngine,
        ask: TextAsk,
        model: Model,
        stream: bool,
        stages: tracing.Stages,
        context: Any,
        heartbeat: EngineHeartbeat,
    ) -> None:
        stages.begin("wait for first token")
        flow = Flow.of(dict(context.invocation_metadata() or ()))
        prompt, inside = await self._reading.do(engine.read(ask), flow=flow, size=_size(ask.turns))
        made = functools.partial(engine.work, ask, prompt, inside, flow=flow)
        if not ask.held and ask.tools is None:
            work = made()
        else:
            work = await asyncio.get_running_loop().run_in_executor(self._workers, made)
        mailbox: Mailbox[Event] = Mailbox()
        engine.submit(work, mailbox.put)
        heartbeat.engine = engine
        held: list[text_pb2.TextEvent] = []
        if ask.ignored:
            started = text_pb2.Started(provider=model.provider, model=model.id, ignored=ask.ignored)
            held.append(text_pb2.TextEvent(started=started))
        meter = TextMeter(len(prompt))
        ended = over = False
        try:
            while not ended:
                events = await mailbox.take()
                stages.begin("generate")
                held += map(_rendered, events)
                ended = isinstance(events[-1], kinds.Ended | Failed)
                if stream or ended or len(held) >= PART:
                    over = ended and isinstance(events[-1], Failed)
                    # Before the write: one that is interrupted may have arrived.
                    for event in held:
                        meter.saw(event, event.WhichOneof("event"))
                    await _write(held, heartbeat)
                    held = []
            over = True
        finally:
            engine.cancel(work)
            if not over and work.begun and self._abandoned:
                usage = _owed(meter, work.counted()) if stream else _usage(work.counted())
                self._abandoned.report(context, usage=usage, operation=quota_pb2.OPERATION_TEXT, model=model)

    async def GenerateWholeText(
        self, request: text_service_pb2.GenerateWholeTextRequest, context: Any
    ) -> text_service_pb2.GenerateWholeTextResponse:
        """Answer a conversation in one message."""
        return await whole_text(self.GenerateText, request, context)

    async def CountTokens(self, request: text_service_pb2.CountTokensRequest, context: Any) -> Any:
        """Count the prompt's tokens with the model's own tokenizer and template."""
        model = find(self._catalogue, request.model, request.provider, "text")
        limits.check_for(request, model)
        tools = tools_from(request.tools, text_pb2.ToolChoice())
        turns = turns_from(request.messages)
        flow = Flow.of(dict(context.invocation_metadata() or ()))
        async with self._registry.use(model) as engine:
            counting: TextEngine = engine  # type: ignore[assignment]
            count = counting.count(turns, tools.offered if tools else ())
            tokens = await self._reading.do(count, flow=flow, size=_size(turns))
        return text_service_pb2.CountTokensResponse(prompt_tokens=tokens)


def _size(turns: Iterable[Turn]) -> int:
    """Return how many characters a conversation has."""
    return sum(turn.chars for turn in turns)


async def _write(events: Iterable[text_pb2.TextEvent], heartbeat: EngineHeartbeat) -> None:
    """Write events in one message; a failure before the first message is raised instead."""
    call = calls.current()
    response = text_service_pb2.GenerateTextResponse(events=events)
    last = response.events[-1]
    if last.HasField("error") and not call.wrote:
        raise error_of(last.error)
    if last.HasField("finished"):
        usage = last.finished.usage
        call.fields.update(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
    call.wrote = True
    await heartbeat.write(response)


def _rendered(event: Event) -> text_pb2.TextEvent:
    match event:
        case kinds.Shown(candidate, piece) if piece.reasoning:
            return text_pb2.TextEvent(candidate=candidate, reasoning=text_pb2.ReasoningDelta(text=piece.text))
        case kinds.Shown(candidate, piece):
            delta = text_pb2.TextDelta(text=piece.text, logprobs=map(_scored, piece.scores))
            return text_pb2.TextEvent(candidate=candidate, text=delta)
        case kinds.Called(candidate, call):
            called = text_pb2.ToolCallDelta(
                call_index=call.index, id=call.id, name=call.name, arguments_json=call.arguments
            )
            return text_pb2.TextEvent(candidate=candidate, tool_call=called)
        case kinds.Counted():
            return text_pb2.TextEvent(usage=_usage(event))
        case kinds.CandidateEnded(candidate, at_bound, stop, has_called):
            ended_by = text_pb2.FINISH_REASON_TOOL_CALLS if has_called else text_pb2.FINISH_REASON_STOP
            reason = text_pb2.FINISH_REASON_LENGTH if at_bound else ended_by
            ended = text_pb2.CandidateFinished(reason=reason, stop_sequence=stop)
            return text_pb2.TextEvent(candidate=candidate, candidate_finished=ended)
        case kinds.Ended(counted):
            return text_pb2.TextEvent(finished=text_pb2.Finished(usage=_usage(counted)))
        case Failed(error):
            return text_pb2.TextEvent(error=detail_of(error, calls.current().request_id))


def _usage(counted: Counted) -> usage_pb2.Usage:
    return usage_pb2.Usage(
        prompt_tokens=counted.prompt,
        completion_tokens=counted.completion,
        reasoning_tokens=counted.reasoning,
        cached_tokens=counted.cached,
        exact=True,
    )


def _owed(meter: TextMeter, counted: Counted) -> usage_pb2.Usage:
    """Return what a caller owes who left: what was delivered, and the prompt as it was read."""
    usage = meter.owed()
    if not usage.prompt_tokens:
        usage.prompt_tokens, usage.cached_tokens = counted.prompt, counted.cached
    return usage


def _scored(score: Score) -> text_pb2.TokenLogprob:
    return text_pb2.TokenLogprob(token=score.token, raw=score.raw, logprob=score.logprob, top=map(_scored, score.top))
