"""`moa.text.v1.TextService` over the cloud providers."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from moa.batch.v1 import provider_batch_service_pb2
from moa.batch.v1.provider_batch_service_pb2_grpc import add_ProviderBatchServiceServicer_to_server
from moa.quota.v1 import quota_pb2
from moa.text.v1.text_pb2 import TextEvent
from moa.text.v1.text_service_pb2 import (
    CountTokensRequest,
    CountTokensResponse,
    GenerateTextRequest,
    GenerateTextResponse,
    GenerateWholeTextRequest,
    GenerateWholeTextResponse,
)
from moa.text.v1.text_service_pb2_grpc import TextServiceServicer, add_TextServiceServicer_to_server
from services.catalogue import Model, Watched, today
from services.common import byok
from services.common.errors import MoaError, UpstreamBroken, detail_of
from services.common.helper_process import HelperProcess, is_large_request
from services.common.rpc import call as calls
from services.common.rpc.server import AnyServer
from services.common.rpc.whole import whole_text
from services.providers.hosting.service import Offer
from services.quota_client import AbandonedCalls
from services.text import count
from services.text.batches import ProviderBatchServicer
from services.text.generation import LIFE_S, Generation
from services.text.targets import ADAPTERS, Target, Targets

PART_TOKENS: Final = 512
"""Of an answer that is wanted whole so much is told at once, at least: half an increment of a reservation is more."""


class TextServicer(TextServiceServicer):
    """Answers chats with the provider that the catalogue names.

    Args:
        catalogue: Which models there are.
        targets: How their providers are reached.
        abandoned: Books what callers may have died before booking; None: nobody does.
        helper: Where large requests are made the providers'; None: here.
    """

    def __init__(
        self,
        catalogue: Watched,
        targets: Targets,
        abandoned: AbandonedCalls | None = None,
        helper: HelperProcess | None = None,
    ) -> None:
        self._helper = helper
        self._catalogue = catalogue
        self._targets = targets
        self._abandoned = abandoned

    async def GenerateText(  # type: ignore[override]  # a coroutine that writes, not a generator
        self, request: GenerateTextRequest, context: Any
    ) -> None:
        """Stream the answer. A failure before its first event is a status, later the last event.

        A message without events is a sign of life, and no first event.
        """
        call = calls.current()
        model, target = self._find(request, context)
        call.fields["provider"] = model.provider
        call.fields["model"] = model.id
        if is_large_request(request):
            # Its client keeps what it sent until the answer begins: now, and not when the provider says something.
            await context.send_initial_metadata(())
        streams = request.stream
        over = False
        began_on = today()
        generation = Generation(request, model, target, self._helper)
        try:
            async with generation:
                if streams:
                    await generation.relay(context.write)
                else:
                    await context.write(await _whole(generation, context))
            over = True
        except MoaError as error:
            if not generation.relayed:
                if request.stream and generation.lived and isinstance(error, UpstreamBroken):
                    # Whoever called must not have the provider begin its work twice.
                    await context.write(GenerateTextResponse())
                over = True
                raise
            call.fields["broke"] = type(error).__name__
            last = TextEvent(error=detail_of(error, call.request_id))
            consumed = generation.consumed()
            closing = [TextEvent(usage=consumed), last] if consumed is not None else [last]
            await context.write(GenerateTextResponse(events=closing))
            over = True
        finally:
            if not over and generation.begun and self._abandoned:
                self._abandoned.report(
                    context,
                    usage=generation.owed(delivers=generation.relayed),
                    operation=quota_pb2.OPERATION_TEXT,
                    model=model,
                    cost=model.cost_on(began_on),
                    count=lambda: count.of_prompt(request, model, target, self._helper),
                )
            if generation.upstream_request_id:
                call.fields["upstream_request_id"] = generation.upstream_request_id

    async def GenerateWholeText(self, request: GenerateWholeTextRequest, context: Any) -> GenerateWholeTextResponse:
        """Return the answer in one message."""
        return await whole_text(self.GenerateText, request, context)

    async def CountTokens(self, request: CountTokensRequest, context: Any) -> CountTokensResponse:
        """Ask the provider to count the prompt; Unsupported where it cannot."""
        model, target = self._find(request, context)
        return CountTokensResponse(prompt_tokens=await count.prompt_tokens(request, model, target))

    def _find(self, request: GenerateTextRequest | CountTokensRequest, context: Any) -> tuple[Model, Target]:
        key = byok.caller_key(calls.metadata_of(context))
        return self._targets.find(self._catalogue.now, request.model, request.provider, caller_key=key)


async def _whole(generation: Generation, context: Any) -> GenerateTextResponse:
    """Return the answer, or what is left of it: meanwhile what came of it is written.

    It shows life, and whoever pays for an answer that nobody bounded ends it where nothing is left: of a fast model
    much comes between two signs of life.
    """
    part, written = GenerateTextResponse(), 0
    now = asyncio.get_running_loop().time
    signed_at = now()
    while (events := await generation.next()) is not None:
        part.events.extend(events)
        if events and events[-1].HasField("finished"):
            continue
        if now() - signed_at >= LIFE_S or generation.made - written >= PART_TOKENS:
            signed_at, written = now(), generation.made
            await context.write(part)
            part = GenerateTextResponse()
    return part


def _add(
    catalogue: Watched, targets: Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: AnyServer
) -> None:
    add_TextServiceServicer_to_server(TextServicer(catalogue, targets, abandoned, helper), server.grpc)
    add_ProviderBatchServiceServicer_to_server(ProviderBatchServicer(catalogue, targets, helper), server.grpc)
    server.offer(provider_batch_service_pb2.DESCRIPTOR.services_by_name["ProviderBatchService"].full_name)


OFFER: Final = Offer(makes="text", adapters=ADAPTERS, add=_add)
