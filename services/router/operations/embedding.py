"""Embeddings, declared: texts to vectors, in one message, charged by the tokens that were read of the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from moa.common.v1 import usage_pb2
from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest, EmbedTextsResponse
from moa.quota.v1 import quota_pb2
from moa.router.v1 import catalog_service_pb2
from services.catalogue import Model, Provider
from services.common.errors import InvalidField
from services.common.estimate import tokens_of
from services.quota_client.amounts import Amount
from services.router.domain import bounds
from services.router.domain.answer import Answer
from services.router.domain.operation import Call, Carriage, Metering, Method, Needed, Operation, Owed, Whole
from services.router.domain.ports import MessageStream, Reservation

SPECIAL_TOKENS: Final = 4
"""At most so many are put around a text."""
SLOW_BYTES_PER_S: Final = 4_000.0
"""What a slow model reads: a thousand tokens a second."""

EmbeddingAnswer = Answer[Whole[EmbedTextsResponse]]


def _carriage(request: EmbedTextsRequest, model: Model, provider: Provider) -> Carriage:
    """All vectors come in one message, which takes the longer the more texts there are."""
    timeouts = provider.timeouts
    return Carriage(timeouts, timeouts.connect_s + timeouts.first_token_s + request.ByteSize() / SLOW_BYTES_PER_S)


def _noted(request: EmbedTextsRequest) -> Mapping[str, Any]:
    return {"gen_ai.embeddings.dimension.count": request.dimensions} if request.HasField("dimensions") else {}


EMBEDDING: Final = Operation[EmbedTextsRequest, Whole[EmbedTextsResponse]](
    name="embedding",
    quota=quota_pb2.OPERATION_TEXT,
    kind=catalog_service_pb2.MODEL_KIND_EMBEDDING,
    stream=None,
    whole=Method(
        name="EmbedTexts",
        request=EmbedTextsRequest,
        response=EmbedTextsResponse,
        answered=Whole,
        gathered=lambda messages: messages[-1].finished,
    ),
    carriage=_carriage,
    span="embeddings",
    noted=_noted,
    nameless=True,
)


class EmbeddingCall(Call[EmbedTextsRequest, Whole[EmbedTextsResponse]]):
    """One request for vectors."""

    operation = EMBEDDING

    def check_request(self) -> None:
        """As `Call.check_request`."""
        request = self.request
        if not request.texts and not request.token_lists:
            raise InvalidField("texts: must be given", param="texts")
        if request.texts and request.token_lists:
            raise InvalidField("give texts or token_lists, not both", param="token_lists")
        super().check_request()

    def amount(self, models: Sequence[Model]) -> Needed:
        """As `Call.amount`: a token a byte at most, and no more than the model reads of a text."""
        tokens = max(self._bound(model) for model in models)
        need = Amount(tokens=tokens, nano_usd=bounds.Rates.of(models, tokens).nano_usd(tokens, 0))
        return Needed(need, need)

    def _bound(self, model: Model) -> int:
        sizes = [len(text.encode()) for text in self.request.texts] or [
            len(given.tokens) for given in self.request.token_lists
        ]
        most = model.context_tokens
        return sum(min(size + SPECIAL_TOKENS, most or size + SPECIAL_TOKENS) for size in sizes)

    @property
    def stake(self) -> usage_pb2.Usage:
        """As `Call.stake`."""
        tokens = sum(map(tokens_of, self.request.texts)) + sum(len(given.tokens) for given in self.request.token_lists)
        return usage_pb2.Usage(prompt_tokens=tokens)

    def ask(self, model: Model, paying: Reservation) -> MessageStream[Whole[EmbedTextsResponse]]:
        """As `Call.ask`."""
        self.request.model, self.request.provider = model.id, model.provider
        bound = self._bound(model)
        return self.backends.ask(self.operation, self.request, model, self.caller, paying, prompt_bound=bound)

    def metering(self) -> EmbeddingMetering:
        """As `Call.metering`."""
        return EmbeddingMetering()


CALL: Final = EmbeddingCall


async def embedded(answer: EmbeddingAnswer) -> EmbedTextsResponse:
    """Return the vectors of an answer. Raises MoaError when it failed."""
    message = await answer.next()
    assert message is not None  # the first one is in hand
    return message.finished


class EmbeddingMetering(Metering):
    """Charges for what was read, once the vectors are here."""

    def consumed(self, *, ended: bool) -> usage_pb2.Usage | None:
        """As `Metering.consumed`."""
        return self.usage if ended and self.usage.prompt_tokens else None

    def abandoned(self, *, ended: bool) -> Owed:
        """As `Metering.abandoned`."""
        return Owed(self.usage, known=ended)
