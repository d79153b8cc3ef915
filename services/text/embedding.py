"""`moa.embedding.v1.EmbeddingService` over the cloud providers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moa.common.v1 import usage_pb2
from moa.common.v1.rates_pb2 import UpstreamRates
from moa.embedding.v1.embedding_service_pb2 import Embedding, EmbedTextsRequest, EmbedTextsResponse
from moa.embedding.v1.embedding_service_pb2_grpc import (
    EmbeddingServiceServicer,
    add_EmbeddingServiceServicer_to_server,
)
from moa.quota.v1 import quota_pb2
from services.catalogue import Model, Watched
from services.common import byok, estimate, limits
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import MoaError, UpstreamBroken
from services.common.helper_process import HelperProcess
from services.common.rpc import call as calls
from services.common.rpc.server import AnyServer
from services.providers import counts, vendors
from services.providers.embedding.base import Adapter, Call, EmbeddedTexts, checked
from services.providers.hosting import targets
from services.providers.hosting.service import Offer
from services.providers.http.constants import without_constants
from services.providers.http.deadline import Deadline
from services.providers.http.exchange import Upload
from services.quota_client import AbandonedCalls

ADAPTERS: Final[Mapping[str, Adapter]] = vendors.adapters("embedding", Adapter)
"""The protocols that embedding models are asked by, by the name that catalogue rows write as `adapter`."""
SIDE_BY_SIDE: Final = 8
"""How many calls of one request run at once."""

Target = targets.Target[Adapter]
Targets = targets.Targets[Adapter]


class EmbeddingServicer(EmbeddingServiceServicer):
    """Embeds with the provider that the catalogue names.

    Args:
        catalogue: Which models there are.
        targets: How their providers are reached.
        abandoned: Books what callers owe who left; None: nobody does.
    """

    def __init__(self, catalogue: Watched, targets: Targets, abandoned: AbandonedCalls | None = None) -> None:
        self._catalogue = catalogue
        self._targets = targets
        self._abandoned = abandoned

    async def EmbedTexts(self, request: EmbedTextsRequest, context: Any) -> EmbedTextsResponse:
        """Embed texts, in as many calls as that takes."""
        call = calls.current()
        key = byok.caller_key(context.invocation_metadata())
        model, target = self._targets.find(self._catalogue.now, request.model, request.provider, caller_key=key)
        call.fields["provider"], call.fields["model"] = model.provider, model.id
        limits.check_for(request, model)
        work = Work(request, model, target)
        over = False
        try:
            answer = await work.answer()
            over = True
            return answer
        except MoaError:
            over = True
            raise
        finally:
            if not over and self._abandoned is not None and (owed := work.owed) is not None:
                self._abandoned.report(context, usage=owed, operation=quota_pb2.OPERATION_TEXT, model=model)
            if work.upstream_request_id:
                call.fields["upstream_request_id"] = work.upstream_request_id


class Work:
    """The vectors of one request.

    Raises InvalidField or Unsupported, with the field's name, for what the provider cannot do.
    """

    def __init__(self, request: EmbedTextsRequest, model: Model, target: Target) -> None:
        self._dimensions = request.dimensions if request.HasField("dimensions") else None
        self._model = model
        self._target = target
        self._calls = target.adapter.calls_from(request, model, target.provider)
        self._turns = asyncio.Semaphore(SIDE_BY_SIDE)
        self._uploads = [Upload() for _ in self._calls]
        self._usages: dict[int, usage_pb2.Usage] = {}
        """What the calls that were answered consumed, by their places."""
        self.upstream_request_id = ""
        self._rates: UpstreamRates | None = None
        """The provider's id of the latest answer, for the log."""

    @property
    def owed(self) -> usage_pb2.Usage | None:
        """What a caller who leaves now owes: what was read, and what may be being read at most; None: nothing."""
        begun = [place for place, upload in enumerate(self._uploads) if upload.begun]
        if not begun:
            return None
        usages, tokens = self._usages, 0
        for place in begun:
            tokens += usages[place].prompt_tokens if place in usages else self._calls[place].most
        exact = all(place in usages and usages[place].exact for place in begun)
        return usage_pb2.Usage(prompt_tokens=min(tokens, estimate.MOST), exact=exact)

    async def answer(self) -> EmbedTextsResponse:
        """Return all vectors, once they are here. Raises MoaError when a call fails; the others are ended then."""
        running = [asyncio.create_task(self._run(place, call)) for place, call in enumerate(self._calls)]
        try:
            answers = await asyncio.gather(*running)
        finally:
            await cancel_and_wait(*running, again_s=CLEANING_S)
        whole = EmbedTextsResponse(model=self._model.id)
        for answer in answers:
            whole.embeddings.extend(Embedding(values=vector) for vector in answer.vectors)
            await asyncio.sleep(0)  # a large answer takes a while to put together
        if len({len(each.values) for each in whole.embeddings}) > 1:
            raise UpstreamBroken("the provider sent vectors of several lengths")
        usages = self._usages.values()
        whole.usage.prompt_tokens = min(sum(usage.prompt_tokens for usage in usages), estimate.MOST)
        whole.usage.exact = all(usage.exact for usage in usages)
        if self._rates is not None:
            whole.rates.CopyFrom(self._rates)
        return whole

    async def _run(self, place: int, call: Call) -> EmbeddedTexts:
        """Make one call."""
        target, timeouts = self._target, self._target.pool.timeouts
        async with self._turns:
            with Deadline() as deadline:
                deadline.within(timeouts.connect_s + timeouts.first_token_s, "answer")
                reply = await target.ask(call.outgoing, self._uploads[place])
                try:
                    self.upstream_request_id = reply.headers.get(target.adapter.request_id_header, "")
                    self._rates = target.rates(reply)
                    body = await reply.read_all()
                finally:
                    reply.close()
            answer = self._read(body, reply.headers)
            checked(answer.vectors, call.texts, self._dimensions)
        counts.note(target.provider.id, answer.reported)
        reported = answer.reported
        self._usages[place] = (
            usage_pb2.Usage(prompt_tokens=call.guess) if reported is None else reported.usage(prompt=call.guess)
        )
        return answer

    def _read(self, body: bytes, headers: Mapping[str, str]) -> EmbeddedTexts:
        try:
            return self._target.adapter.answer_from(body, headers)
        except (msgspec.MsgspecError, ValueError):
            # A count that is no number takes nothing from good vectors.
            mended = without_constants(body)
            if mended is None:
                raise UpstreamBroken("the provider's answer could not be read") from None
            return self._read(mended, headers)


def _add(
    catalogue: Watched, targets: Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: AnyServer
) -> None:
    add_EmbeddingServiceServicer_to_server(EmbeddingServicer(catalogue, targets, abandoned), server.grpc)


OFFER: Final = Offer(makes="embedding", adapters=ADAPTERS, add=_add)
