"""Embeddings are admitted, charged by what was read, and cost nothing when they fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moa.common.v1 import usage_pb2
from moa.embedding.v1 import embedding_service_pb2
from services.catalogue import Catalogue, Model, Provider, Route, RouteTarget
from services.common.errors import InvalidField, ModelNotFound, PermissionDenied, Unavailable, Unsupported
from services.router.domain.caller import Caller
from services.router.domain.operation import Whole
from services.router.domain.operations import Operations
from services.router.domain.terms import Patience
from services.router.operations.embedding import EmbeddingCall
from tests.router.rig import KEY, OTHER_KEY, MessageStream, Played

PROVIDERS = [
    Provider(id="chat", adapter="inference", makes="text"),
    Provider(id="local-embedding", adapter="inference", makes="embedding"),
]
MODELS = [
    Model(id="chatty", provider="chat"),
    Model(id="encoder", provider="local-embedding", context_tokens=16),
    Model(id="first", provider="local-embedding", context_tokens=16, fallback=("encoder",)),
]
ROUTE = Route(id="vectors", targets=(RouteTarget(model="first"), RouteTarget(model="encoder")))
CATALOGUE = Catalogue(PROVIDERS, MODELS, frozenset({"chat", "local-embedding"}), [ROUTE])


class Rig(Played):
    """Reads three tokens a text, or does as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int, int | None]] = []
        self.failing: dict[str, BaseException] = {}
        inputs: Any = None
        self.operations = Operations(
            catalogue=lambda: CATALOGUE,
            admission=self,
            backends=self,
            inputs=inputs,
            patience=Patience(pause=self.no_pause),
        )

    async def no_pause(self, _: float) -> None: ...

    def ask(
        self, operation: Any, request: Any, *asked: Any, prompt_bound: int | None = None, books: bool = True
    ) -> Any:
        model, _, reserved = asked
        self.asked.append((f"{request.provider}/{request.model}", reserved.tokens, prompt_bound))
        if model.id in self.failing:
            return Failing(self.failing[model.id])
        usage = usage_pb2.Usage(prompt_tokens=3 * len(request.texts), exact=True)
        return MessageStream([Whole(embedding_service_pb2.EmbedTextsResponse(usage=usage, model=model.id))])

    async def embed(self, *texts: str, key: str = KEY, **fields: Any) -> embedding_service_pb2.EmbedTextsResponse:
        request = embedding_service_pb2.EmbedTextsRequest(texts=texts, **fields)
        answer = await self.operations.begin(EmbeddingCall(request), Caller(key=key, request_id="r", began=0.0))
        async with answer:
            message = await answer.next()
            assert message is not None
            assert await answer.next() is None
        return message.finished


class Failing(MessageStream):
    """A call that fails, or whose caller leaves."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__([])
        self._failure = failure

    async def read(self) -> Any:
        raise self._failure


async def test_what_was_read_is_charged() -> None:
    """A byte a token is reserved, no more than the model reads of a text; what it read is charged, as text."""
    rig = Rig()
    await rig.embed("fox", "x" * 100, model="encoder")
    assert rig.asked == [("local-embedding/encoder", 7 + 16, 7 + 16)]
    [usage] = rig.books.ended()
    assert usage is not None
    assert usage.prompt_tokens == 6


async def test_a_request_without_a_model_is_for_the_first() -> None:
    """The contract's default is the first embedding model of the catalogue, whatever else it has."""
    assert (await Rig().embed("fox")).model == "encoder"


async def test_another_model_answers_where_its_row_says_so() -> None:
    """A model that fails is answered for by its fallback, and the caller pays once."""
    rig = Rig()
    rig.failing["first"] = Unavailable("away")
    assert (await rig.embed("fox", model="first")).model == "encoder"
    assert [usage.prompt_tokens for usage in rig.books.ended() if usage] == [3]


async def test_a_virtual_model_is_answered_by_a_target_of_it() -> None:
    """Under the target's name, paid once, and the next target answers where one fails."""
    rig = Rig()
    assert (await rig.embed("fox", model="vectors")).model == "first"
    rig.failing["first"] = Unavailable("away")
    assert (await rig.embed("fox", model="virtual-embedding/vectors")).model == "encoder"
    assert [usage.prompt_tokens for usage in rig.books.ended() if usage] == [3, 3]


@pytest.mark.parametrize("failure", [Unavailable("away"), asyncio.CancelledError()])
async def test_what_fails_costs_nothing(failure: BaseException) -> None:
    """When the encoder fails everything is given back; when the caller leaves, who answers says what is owed."""
    rig = Rig()
    rig.failing["encoder"] = failure
    with pytest.raises(type(failure)):
        await rig.embed("fox", model="encoder")
    assert rig.books.ended() == [None]


async def test_refusals_reserve_nothing() -> None:
    """What is wrong with a request is told before anything is reserved or computed."""
    rig = Rig()
    tokens = [embedding_service_pb2.TokenList(tokens=[1])]
    with pytest.raises(ModelNotFound):
        await rig.embed("fox", model="nobody")
    with pytest.raises(
        Unsupported, match="makes text, not embeddings; ask it for text, or another model for embeddings"
    ):
        await rig.embed("fox", model="chatty")
    with pytest.raises(InvalidField):
        await rig.embed()
    with pytest.raises(InvalidField, match="not both"):
        await rig.embed("fox", token_lists=tokens)
    with pytest.raises(Unsupported, match="token_input"):
        await rig.embed(token_lists=tokens)
    with pytest.raises(Unsupported, match="dimensions"):
        await rig.embed("fox", dimensions=8)
    with pytest.raises(PermissionDenied):
        await rig.embed("fox", key=OTHER_KEY)
    assert not rig.asked
