"""`moa.batch.v1.ProviderBatchService` over the cloud providers' batch APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar

from moa.batch.v1 import provider_batch_service_pb2 as pb
from moa.batch.v1.provider_batch_service_pb2_grpc import ProviderBatchServiceServicer
from moa.text.v1.text_pb2 import TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Watched
from services.common import logs
from services.common.errors import MoaError, Unsupported, UpstreamBroken, detail_of
from services.common.helper_process import HelperProcess
from services.common.rpc import call as calls
from services.providers.http.client import Outgoing
from services.providers.http.deadline import Deadline
from services.providers.text.batches import BatchApi, Line, Result, Sought, Steps
from services.text import choice, json_object, prepare
from services.text.targets import Target, Targets

T = TypeVar("T")

_ANSWER_S: Final = 60.0
"""How long a provider may take for each answer about a batch, and between pieces of its results."""
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024
_WHOLE: Final = {"content-type": "application/json"}

_log = logs.get("provider_batches")


class ProviderBatchServicer(ProviderBatchServiceServicer):
    """Asks providers for batches.

    Args:
        catalogue: Which models there are.
        targets: How their providers are reached.
        helper: Where large requests are made the providers'; None: here.
    """

    def __init__(self, catalogue: Watched, targets: Targets, helper: HelperProcess | None = None) -> None:
        self._catalogue = catalogue
        self._targets = targets
        self._helper = helper

    async def CreateProviderBatch(
        self, request: pb.CreateProviderBatchRequest, context: Any
    ) -> pb.CreateProviderBatchResponse:
        """Make a batch of what the provider can be asked."""
        model, target, api = self._found(request)
        lines, refused = [], []
        for each in request.requests:
            try:
                lines.append(Line(each.custom_id, await self._outgoing(each.request, model, target)))
            except MoaError as error:
                _log.info("request.not_batched", custom_id=each.custom_id, why=error.message[:80])
                refused.append(each.custom_id)
        if not lines:
            return pb.CreateProviderBatchResponse(refused_ids=refused)
        # A request that is sent again because its connection was closed may make a second batch.
        batch_id = await _asked(target, api.create(target.provider, request.name, lines), own_connection=True)
        calls.current().fields["upstream_batch"] = batch_id
        return pb.CreateProviderBatchResponse(provider_batch_id=batch_id, refused_ids=refused)

    async def _outgoing(self, request: GenerateTextRequest, model: Model, target: Target) -> Outgoing:
        """Return a request as it is asked. Raises Unsupported for what is emulated as its answer comes."""
        if json_object.is_emulated(request, model) or choice.is_emulated(request, target.adapter):
            raise Unsupported("this provider has no such form of answers", param="response_format")
        return (await prepare.outgoing(request, model, target, stream=False, helper=self._helper)).outgoing

    async def FindProviderBatch(
        self, request: pb.FindProviderBatchRequest, context: Any
    ) -> pb.FindProviderBatchResponse:
        """Find a batch that may have been made."""
        _, target, api = self._found(request)
        sought = Sought(request.name, request.since, request.requests, frozenset(request.known_ids))
        found = await _asked(target, api.find(target.provider, sought))
        return pb.FindProviderBatchResponse(provider_batch_id=found.batch_id, undecided=found.undecided)

    async def GetProviderBatch(self, request: pb.GetProviderBatchRequest, context: Any) -> pb.GetProviderBatchResponse:
        """Return whether a batch has ended."""
        _, target, api = self._found(request)
        ended = await _asked(target, api.has_ended(target.provider, request.provider_batch_id))
        return pb.GetProviderBatchResponse(ended=ended)

    async def CancelProviderBatch(
        self, request: pb.CancelProviderBatchRequest, context: Any
    ) -> pb.CancelProviderBatchResponse:
        """Ask for a batch's end."""
        _, target, api = self._found(request)
        await _asked(target, api.cancel(target.provider, request.provider_batch_id))
        return pb.CancelProviderBatchResponse()

    async def ReadProviderBatch(self, request: pb.ReadProviderBatchRequest, context: Any) -> None:  # type: ignore[override]
        """Stream the results of the wanted requests, each once."""
        model, target, api = self._found(request)
        wanted = {each.custom_id: each.request for each in request.requests}
        async for result in _results(target, api, request.provider_batch_id):
            asked = wanted.pop(result.custom_id, None)
            if asked is not None:
                await context.write(_result_of(result, asked, model, target))

    def _found(self, request: Any) -> tuple[Model, Target, BatchApi]:
        """Return who is asked. Raises Unsupported where that is nobody's way."""
        model, target = self._targets.find(self._catalogue.now, request.model, request.provider, caller_key="")
        calls.current().fields.update(provider=model.provider, model=model.id)
        if target.adapter.batches is None:
            raise Unsupported(f"provider {model.provider!r} has no batch API here", param="model")
        return model, target, target.adapter.batches


async def _asked(target: Target, steps: Steps[T], *, own_connection: bool = False) -> T:
    """Send what an adapter asks, one after the other, and return what it makes of the answers. Raises MoaError.

    `own_connection`: nothing is sent again.
    """
    given: bytes | None = None
    while True:
        try:
            outgoing = steps.send(given) if given is not None else next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        with Deadline() as deadline:
            deadline.within(_ANSWER_S, "answer")
            reply = await target.ask(outgoing, own_connection=own_connection)
            try:
                given = await reply.read_all()
            finally:
                reply.close()


async def _results(target: Target, api: BatchApi, batch_id: str) -> AsyncIterator[Result]:
    """Yield the results of a batch that has ended. Raises MoaError."""
    found = await _asked(target, api.results(target.provider, batch_id))
    for result in found.inline:
        yield result
    for outgoing in found.asked:
        async for line in _lines(target, outgoing):
            yield api.result_from(line)


async def _lines(target: Target, outgoing: Outgoing) -> AsyncIterator[bytes]:
    """Yield the lines of an answer that are not empty. Raises MoaError where it breaks off, or a line has no end."""
    rest = b""
    with Deadline() as deadline:
        deadline.within(_ANSWER_S, "answer")
        reply = await target.ask(outgoing)
        try:
            while data := await reply.read_some():
                deadline.rest()
                *lines, rest = (rest + data).split(b"\n")
                for line in filter(bytes.strip, lines):
                    yield line
                if len(rest) > _MOST_LINE_BYTES:
                    raise UpstreamBroken("a line of the provider's results is too long")
                deadline.within(_ANSWER_S, "go on")
        finally:
            reply.close()
    if rest.strip():
        yield rest


def _result_of(
    result: Result, asked: GenerateTextRequest, model: Model, target: Target
) -> pb.ReadProviderBatchResponse:
    """Return a result as it is told."""
    response = pb.ReadProviderBatchResponse
    if result.error is not None:
        return _errored(result.custom_id, target.judged(result.error, 200))
    if not result.body:
        outcome = response.OUTCOME_EXPIRED if result.expired else response.OUTCOME_CANCELED
        return response(custom_id=result.custom_id, outcome=outcome)
    reader = target.adapter.reader(asked, model, _WHOLE)
    events: list[TextEvent] = reader.feed(result.body)
    if reader.failure is None and not reader.done:
        events = [*events, *reader.end()]
    if reader.failure is not None:
        return _errored(result.custom_id, target.judged(reader.failure, 200))
    return response(custom_id=result.custom_id, outcome=response.OUTCOME_SUCCEEDED, events=events)


def _errored(custom_id: str, error: MoaError) -> pb.ReadProviderBatchResponse:
    return pb.ReadProviderBatchResponse(
        custom_id=custom_id,
        outcome=pb.ReadProviderBatchResponse.OUTCOME_ERRORED,
        error=detail_of(error, custom_id),
    )
