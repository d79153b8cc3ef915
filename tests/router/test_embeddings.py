"""Embeddings are admitted, charged by what was read, and cost nothing when they fail or are left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moa.common.v1 import usage_pb2
from moa.embedding.v1 import embedding_service_pb2
from services.catalogue import Catalogue, Model, Provider
from services.common.errors import InvalidField, ModelNotFound, PermissionDenied, Unavailable
from services.router.domain.caller import Caller
from services.router.domain.embeddings import Embeddings
from tests.router.rig import KEY, OTHER_KEY, Books, Played

CATALOGUE = Catalogue(
    [Provider(id="local-embedding", adapter="inference", makes="embedding")],
    [Model(id="encoder", provider="local-embedding", context_tokens=16)],
    frozenset({"local-embedding"}),
)


class Encoders:
    """Reads three tokens a text, or fails as it is told."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.asked: list[tuple[str, int]] = []

    async def embed(self, request: Any, model: Model, caller: Caller, reserved: Any) -> Any:
        self.asked.append((request.model, reserved.tokens))
        if self.failure is not None:
            raise self.failure
        usage = usage_pb2.Usage(prompt_tokens=3 * len(request.texts), exact=True)
        return embedding_service_pb2.EmbedTextsResponse(usage=usage, model=model.id)


def made() -> tuple[Embeddings, Encoders, Books]:
    played, encoders = Played(), Encoders()
    return Embeddings(catalogue=lambda: CATALOGUE, admission=played, encoders=encoders), encoders, played.books


def asked(*texts: str, model: str = "") -> embedding_service_pb2.EmbedTextsRequest:
    return embedding_service_pb2.EmbedTextsRequest(model=model, texts=texts)


def caller(key: str = KEY) -> Caller:
    return Caller(key=key, request_id="r", began=0.0)


async def test_what_was_read_is_charged() -> None:
    """A byte a token is reserved, no more than the model reads of a text; what it read is charged, as text."""
    embeddings, encoders, books = made()
    await embeddings.embed(asked("fox", "x" * 100), caller())
    assert encoders.asked == [("local-embedding/encoder", 7 + 16)]
    [usage] = books.ended()
    assert usage is not None
    assert usage.prompt_tokens == 6


@pytest.mark.parametrize("failure", [Unavailable("away"), asyncio.CancelledError()])
async def test_what_fails_or_is_left_costs_nothing(failure: BaseException) -> None:
    """When the encoder fails, and when the caller leaves, everything is given back."""
    embeddings, encoders, books = made()
    encoders.failure = failure
    with pytest.raises(type(failure)):
        await embeddings.embed(asked("fox"), caller())
    assert books.ended() == [None]


async def test_refusals_reserve_nothing() -> None:
    """An unknown model, no texts and a key without permission are refused before anything is reserved or computed."""
    embeddings, encoders, _ = made()
    with pytest.raises(ModelNotFound):
        await embeddings.embed(asked("fox", model="nobody"), caller())
    with pytest.raises(InvalidField):
        await embeddings.embed(asked(), caller())
    with pytest.raises(PermissionDenied):
        await embeddings.embed(asked("fox"), caller(OTHER_KEY))
    assert not encoders.asked
