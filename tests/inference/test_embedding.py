"""Embeddings through a real server, held against the model computed text by text."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from inference.embedding.engine import EmbeddingEngine
from inference.fair import Flow
from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from services.common import errors
from services.common.rpc import call as calls
from services.common.rpc import client
from services.common.rpc.status import error_from_rpc
from tests.books import keeping
from tests.inference.encoders import WORDS, built
from tests.inference.harness import TOKEN, Running, until

TEXTS = ["the fox", "a crow on the river and the red sky", "desk", "blue blue sky is in the city of three"]
LONG = "fox " * 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve an encoder of each pooling, and one whose pooling is not known."""
    folder = tmp_path_factory.mktemp("encoders")
    made = {
        "mean": built(folder / "mean"),
        "first": built(folder / "first", pooling="cls_token", normalises=False),
        "most": built(folder / "most", pooling="max"),
    }
    models = [
        {"id": name, "provider": "local-embedding", "load": {"source": str(place), "options": {"batch_tokens": 64}}}
        for name, place in made.items()
    ]
    file = folder / "catalogue.yaml"
    providers = [{"id": "local-embedding", "adapter": "inference", "makes": "embedding"}]
    file.write_text(json.dumps({"providers": providers, "models": models}))
    server = Running(file)
    yield server
    server.stop()


@pytest.fixture
async def embed(served: Running) -> AsyncIterator[Any]:
    channel = client.channel(served.address)
    stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)

    async def call(*texts: str, model: str = "mean", **fields: Any) -> embedding_service_pb2.EmbedTextsResponse:
        request = embedding_service_pb2.EmbedTextsRequest(model=model, texts=texts, **fields)
        try:
            answer: embedding_service_pb2.EmbedTextsResponse = await stub.EmbedTexts(
                request, metadata=client.metadata(TOKEN, "test")
            )
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        return answer

    yield call
    await channel.close()


def cosine(one: Any, other: Any) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return float(product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other)))


def computed(engine: EmbeddingEngine, text: str) -> list[float]:
    """Compute one text by itself, without padding, as the pooling is published."""
    import torch

    encoder = engine.encoder
    with torch.inference_mode():
        hidden = encoder.network(torch.tensor([encoder.enclosed(encoder.tokens(text))])).last_hidden_state[0]
    vector = hidden[0] if encoder.pooling == "cls" else hidden.mean(0)
    return (vector / vector.norm() if encoder.normalises else vector).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", ["mean", "first"])
async def test_vectors_are_those_of_the_published_pooling(served: Running, embed: Any, model: str) -> None:
    """In the texts' order, whatever their lengths, each vector is that of its text alone; tokens are counted."""
    out = await embed(*TEXTS, model=model)
    engine = served.engine(model)
    assert out.model == model
    for text, found in zip(TEXTS, out.embeddings, strict=True):
        wanted = computed(engine, text)
        assert cosine(found.values, wanted) > 0.999999
        assert math.isclose(math.hypot(*found.values), math.hypot(*wanted), rel_tol=1e-5)
        assert found.tokens == len(engine.encoder.enclosed(engine.encoder.tokens(text)))
    assert out.usage.prompt_tokens == sum(found.tokens for found in out.embeddings)
    if model == "mean":
        assert math.isclose(math.hypot(*out.embeddings[0].values), 1, rel_tol=1e-6)


async def test_requests_share_calls_and_keep_their_texts(served: Running, embed: Any) -> None:
    """Many requests at once are batched by tokens, no call beyond its bound, and each gets its own texts' vectors."""
    await embed("fox")
    engine = served.engine("mean")
    before, widest = engine.ticks, 0
    inner = engine.encoder.embed

    def watched(batch: Any) -> Any:
        nonlocal widest
        widest = max(widest, len(batch) * max(map(len, batch)))
        return inner(batch)

    engine.__dict__["encoder"] = _Watched(engine.encoder, watched)
    try:
        outs = await asyncio.gather(*(embed(word, f"the {word}") for word in WORDS))
    finally:
        engine.__dict__["encoder"] = engine.encoder.encoder
    assert engine.ticks - before < 2 * len(WORDS)
    assert widest <= 64
    for word, out in zip(WORDS, outs, strict=True):
        assert cosine(out.embeddings[0].values, computed(engine, word)) > 0.999999


class _Watched:
    def __init__(self, encoder: Any, embed: Any) -> None:
        self.encoder = encoder
        self.embed = embed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)


async def test_a_long_text_is_refused_or_cut_where_that_is_asked_for(served: Running, embed: Any) -> None:
    """A text beyond the longest is refused by its place; with `truncate` it is read to there, its end mark kept."""
    with pytest.raises(errors.ContextTooLong) as caught:
        await embed("fox", LONG)
    assert caught.value.param == "texts[1]"
    out = await embed(LONG, truncate=True)
    assert out.embeddings[0].tokens == 24
    whole = " ".join(["fox"] * 22)
    assert cosine(out.embeddings[0].values, computed(served.engine("mean"), whole)) > 0.999999


@pytest.mark.parametrize(
    ("texts", "fields", "kind"),
    [
        ([], {}, errors.InvalidField),
        (["fox", " "], {}, errors.InvalidField),
        (["fox"] * 2049, {}, errors.InvalidField),
        (["fox"], {"model": "nobody"}, errors.ModelNotFound),
        (["fox"], {"model": "most"}, errors.ModelMisconfigured),
    ],
)
async def test_bad_requests_are_refused(
    embed: Any, texts: list[str], fields: dict[str, Any], kind: type[errors.MoaError]
) -> None:
    """No texts, an empty one, too many, an unknown model and an unknown pooling each have their error."""
    with pytest.raises(kind):
        await embed(*texts, **fields)


async def test_one_account_does_not_hold_up_another() -> None:
    """A text of an account with nothing waiting is in the next call, however many another account has waiting."""
    order: list[list[int]] = []

    class Encoder:
        size_bytes = 0

        @staticmethod
        def embed(batch: Any) -> list[list[float]]:
            order.append([tokens[0] for tokens in batch])
            return [[0.0]] * len(batch)

    encoder: Any = Encoder
    engine = EmbeddingEngine("shared", encoder, batch_tokens=8)
    many = asyncio.create_task(_all(engine, [[1] * 4] * 20, Flow("many")))
    await asyncio.sleep(0)
    one = asyncio.create_task(_all(engine, [[2] * 4], Flow("one")))
    await asyncio.sleep(0)
    engine.start()
    await asyncio.gather(many, one)
    assert any(2 in call for call in order[:2])
    assert await asyncio.to_thread(engine.wait_idle, 60)
    for name in ("waiting", "running"):
        assert REGISTRY.get_sample_value(f"moa_engine_{name}", {"model": "shared"}) == 0
    await asyncio.to_thread(engine.stop)


async def _all(engine: EmbeddingEngine, texts: list[list[int]], flow: Flow) -> None:
    await engine.embed(engine.request(texts, flow))


@pytest.mark.parametrize("ticks", [0, 1])
async def test_a_caller_who_leaves_owes_the_texts_that_were_read(served: Running, tmp_path: Path, ticks: int) -> None:
    """Before any text was read nothing is owed; then those that were, and not those that still waited."""
    reached = threading.Event()
    async with keeping(TOKEN) as (kept, auth):
        running = Running(served.process.config.catalogue, auth_address=auth)
        try:
            async with client.channel(running.address) as link:
                stub = embedding_service_pb2_grpc.EmbeddingServiceStub(link)
                request = embedding_service_pb2.EmbedTextsRequest(model="mean", texts=["the fox"])
                one = (await stub.EmbedTexts(request, metadata=client.metadata(TOKEN, "first"))).usage.prompt_tokens
                request.texts.extend(["the fox"] * 39)
                sent = client.metadata(TOKEN, "left", (calls.RESERVATION_KEY, "lease.1.4000.0"))
                with running.held("mean", after_ticks=ticks, reached=reached) as engine:
                    call = stub.EmbedTexts(request, metadata=sent)
                    assert await asyncio.to_thread(reached.wait, 60)
                    call.cancel()
                    await until(lambda: not engine.queue.waiting)
        finally:
            await asyncio.to_thread(running.stop)
    if not ticks:
        assert kept.settled == []
        return
    [settlement] = kept.settled
    assert settlement.usage.prompt_tokens == settlement.charged.tokens == 64 // one * one
    assert settlement.usage.exact


async def test_shorter_vectors_are_the_first_numbers(served: Running, embed: Any) -> None:
    """Vectors of fewer numbers are the first ones of the whole, of length 1 again where the model normalises; more than
    the model makes are refused."""
    whole, short = await embed("the fox"), await embed("the fox", dimensions=4)
    assert len(short.embeddings[0].values) == 4
    assert cosine(short.embeddings[0].values, whole.embeddings[0].values[:4]) > 0.999999
    assert math.isclose(math.hypot(*short.embeddings[0].values), 1, rel_tol=1e-6)
    with pytest.raises(errors.InvalidField):
        await embed("the fox", dimensions=100_000)
