"""What every adapter of embedding models must do, shown through the real service and strict emulators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from moa.embedding.v1 import embedding_service_pb2 as pb
from moa.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from services.common import errors
from services.common.rpc import call as calls
from services.common.rpc.client import channel, metadata
from services.common.rpc.status import error_from_rpc
from services.text.embedding import SIDE_BY_SIDE
from services.text.service import SERVICE
from services.text.settings import TextSettings
from tests.books import keeping
from tests.emulators import aws, embeddings
from tests.emulators.script import Script
from tests.text.harness import TOKEN, Row, write_catalogue
from tests.text.subjects import REASONS, TIMEOUTS

AWS = {"AWS_ACCESS_KEY_ID": aws.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An adapter, and the emulator of what it speaks to."""

    name: str
    emulator: Callable[[], Any]
    provider: Callable[[Any], Row]
    environment: Mapping[str, str]
    model: str
    size: int
    batch: int
    """Texts of a call."""
    shorter: int | None = None
    """Numbers of a vector that may be asked for."""
    tokens: bool = False
    """Whether tokens are taken."""
    counts: bool = True
    """Whether the provider reports what it read."""
    purpose: Mapping[str, str] = field(default_factory=dict)
    """What a question's request says beside that of a document."""
    lacks: frozenset[str] = frozenset({"context_too_long", "content_policy"})
    """Reasons that the protocol has no word for."""


def _openai(emulator: Any) -> Row:
    credentials = {"api_key": "OPENAI_API_KEY"}
    options = {"base64": True, "batch": 4}
    return {"adapter": "openai", "base_url": emulator.base_url, "credentials": credentials, "options": options}


def _azure(emulator: Any) -> Row:
    credentials = {"api_key": "AZURE_OPENAI_API_KEY"}
    options = {"batch": 4}
    return {"adapter": "azure", "base_url": emulator.url, "credentials": credentials, "options": options}


def _bedrock(emulator: Any) -> Row:
    credentials = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    region = {"region": aws.REGION}
    return {"adapter": "bedrock", "base_url": emulator.url, "credentials": credentials, "options": region}


def _gemini(emulator: Any) -> Row:
    return {"adapter": "gemini", "base_url": emulator.base_url, "credentials": {"api_key": "GEMINI_API_KEY"}}


SUBJECTS = [
    Subject(
        name="openai",
        emulator=embeddings.OpenAIEmbeddings,
        provider=_openai,
        environment={"OPENAI_API_KEY": "sk-good"},
        model="text-embedding-3-small",
        size=1536,
        batch=4,
        shorter=256,
        tokens=True,
        lacks=frozenset(),
    ),
    Subject(
        name="compatible",
        emulator=lambda: embeddings.OpenAIEmbeddings(needs_key=False),
        provider=lambda emulator: {"adapter": "openai", "base_url": emulator.base_url},
        environment={},
        model="bge-m3",
        size=1024,
        batch=256,
        lacks=frozenset(),
    ),
    Subject(
        name="azure",
        emulator=embeddings.AzureEmbeddings,
        provider=_azure,
        environment={"AZURE_OPENAI_API_KEY": "azure-good"},
        model="embedding-deployment",
        size=1536,
        batch=4,
        shorter=512,
        tokens=True,
        lacks=frozenset(),
    ),
    Subject(
        name="gemini",
        emulator=embeddings.GeminiEmbeddings,
        provider=_gemini,
        environment={"GEMINI_API_KEY": "AIza-good"},
        model="gemini-embedding-001",
        size=3072,
        batch=100,
        shorter=768,
        counts=False,
        purpose={"taskType": "RETRIEVAL_QUERY"},
    ),
    Subject(
        name="titan",
        emulator=embeddings.BedrockEmbeddings,
        provider=_bedrock,
        environment=AWS,
        model=embeddings.TITAN,
        size=1024,
        batch=1,
        shorter=256,
    ),
    Subject(
        name="cohere",
        emulator=embeddings.BedrockEmbeddings,
        provider=_bedrock,
        environment=AWS,
        model=embeddings.COHERE,
        size=1024,
        batch=96,
        purpose={"input_type": "search_query"},
    ),
    Subject(
        name="cohere4",
        emulator=embeddings.BedrockEmbeddings,
        provider=_bedrock,
        environment=AWS,
        model=embeddings.COHERE_4,
        size=1024,
        batch=96,
        shorter=512,
    ),
]


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    assert isinstance(request.param, Subject)
    return request.param


@pytest.fixture
async def upstream(subject: Subject) -> AsyncIterator[Any]:
    async with subject.emulator() as emulator:
        yield emulator
        assert emulator.refused == [], "the adapter sent something that the real service would refuse"


class Client:
    """Calls the service as the router does."""

    def __init__(self, to_text: Any) -> None:
        self._stub = EmbeddingServiceStub(to_text)
        self._health = health_pb2_grpc.HealthStub(to_text)

    async def turn(self) -> None:
        """Go to the service and back, behind whatever was sent before."""
        await self._health.Check(health_pb2.HealthCheckRequest())

    def call(self, *texts: str, **fields: Any) -> Any:
        request = pb.EmbedTextsRequest(model="m", provider="p", texts=texts, **fields)
        return self._stub.EmbedTexts(request, metadata=metadata(TOKEN, "req-test"))

    async def embed(self, *texts: str, **fields: Any) -> pb.EmbedTextsResponse:
        try:
            answer: pb.EmbedTextsResponse = await self.call(*texts, **fields)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        return answer


@pytest.fixture
async def service(subject: Subject, upstream: Any, tmp_path: Path) -> AsyncIterator[Client]:
    able = ["token_input"] * subject.tokens + ["dimensions"] * (subject.shorter is not None)
    provider: Row = {"id": "p", "makes": "embedding", "timeouts": TIMEOUTS, **subject.provider(upstream)}
    model: Row = {"id": "m", "provider": "p", "upstream": subject.model, "capabilities": able}
    path = tmp_path / "catalogue.yaml"
    write_catalogue(path, [provider], [model])
    config = TextSettings(service_token=SecretStr(TOKEN), catalogue=path, listen="127.0.0.1:0", drain_s=0)
    async with (
        SERVICE.serve(config, subject.environment) as served,
        channel(f"127.0.0.1:{served.port}") as opened,
    ):
        yield Client(opened)


async def test_each_text_has_its_vector(service: Client, upstream: Any, subject: Subject) -> None:
    """However many calls that takes, the vectors come in the order of the texts, with what was read of them all."""
    texts = [f"안녕 {'x' * place}" for place in range(101)]
    answer = await service.embed(*texts)
    assert answer.model == "m"
    assert [each.values[0] for each in answer.embeddings] == [float(len(text)) for text in texts]
    assert {len(each.values) for each in answer.embeddings} == {subject.size}
    assert len(upstream.seen) == -(-len(texts) // subject.batch)
    if subject.counts:
        assert (answer.usage.prompt_tokens, answer.usage.exact) == (sum(map(len, texts)), True)
    else:
        assert answer.usage.prompt_tokens > 0
        assert not answer.usage.exact


async def test_shorter_vectors(service: Client, upstream: Any, subject: Subject) -> None:
    """Where a model makes shorter vectors it is asked for them; where not, that is refused before it is asked."""
    if subject.shorter is None:
        with pytest.raises(errors.Unsupported, match="dimensions"):
            await service.embed("a", dimensions=8)
        assert not upstream.seen
        return
    answer = await service.embed("a", dimensions=subject.shorter)
    assert len(answer.embeddings[0].values) == subject.shorter


async def test_tokens(service: Client, upstream: Any, subject: Subject) -> None:
    """Tokens go as tokens where the protocol takes them, and are refused where they would be read as something else."""
    lists = [pb.TokenList(tokens=range(1, 8)), pb.TokenList(tokens=[5, 6])]
    if not subject.tokens:
        with pytest.raises(errors.Unsupported, match="token_input"):
            await service.embed(token_lists=lists)
        assert not upstream.seen
        return
    answer = await service.embed(token_lists=lists)
    assert [each.values[0] for each in answer.embeddings] == [7.0, 2.0]
    assert answer.usage.prompt_tokens == 9


async def test_what_the_vectors_are_for(service: Client, upstream: Any, subject: Subject) -> None:
    """The purpose reaches models that know one, in their words; others make the same of all texts."""
    await service.embed("a", purpose=pb.PURPOSE_QUERY, title="of nothing")
    body = upstream.seen[-1].body
    sent = body["requests"][0] if "requests" in body else body
    assert {name: sent.get(name) for name in subject.purpose} == subject.purpose


@pytest.mark.parametrize("reason", REASONS)
async def test_refusals_are_typed(service: Client, upstream: Any, subject: Subject, reason: str) -> None:
    """Each way to be refused is one reason."""
    if reason in subject.lacks:
        assert reason in ("context_too_long", "content_policy")
        return
    upstream.scripts.append(Script(refuse=reason))
    with pytest.raises(errors.BY_WORD[reason]):
        await service.embed("a")


@pytest.mark.parametrize(
    "vectors",
    [[], [[]], [[1.0, 2.0], [1.0, 2.0]], [[1.0, float("nan")]]],
    ids=["none", "empty", "too many", "no number"],
)
async def test_what_is_no_vector_is_a_broken_answer(
    service: Client, upstream: Any, subject: Subject, vectors: Any
) -> None:
    """As many vectors as texts, each of numbers: else the answer is broken, and nothing of it is delivered."""
    # Titan's answers have one.
    upstream.vectors = vectors if subject.batch > 1 or len(vectors) < 2 else [[float("inf")]]
    with pytest.raises(errors.UpstreamBroken):
        await service.embed("a")


async def test_vectors_of_another_length_than_was_asked_for(service: Client, upstream: Any, subject: Subject) -> None:
    """A server that passes over `dimensions` did not do what was asked."""
    if subject.shorter is None:
        return
    upstream.vectors = [[1.0, 2.0]]
    with pytest.raises(errors.UpstreamBroken, match="of 2 numbers"):
        await service.embed("a", dimensions=subject.shorter)


@pytest.mark.parametrize("manner", [{"cut_at": 0}, {"malformed_at": 0}])
async def test_broken_answers(service: Client, upstream: Any, manner: dict[str, int]) -> None:
    """An answer that breaks off, or cannot be read, is the provider's failure."""
    upstream.scripts.append(Script(**manner))  # type: ignore[arg-type]
    with pytest.raises(errors.UpstreamBroken):
        await service.embed("a")


async def test_one_failed_call_fails_the_request(service: Client, upstream: Any, subject: Subject) -> None:
    """A request whose texts take several calls fails with the first that does."""
    upstream.scripts.extend([Script()] * 2 + [Script(refuse="upstream_failed")])
    with pytest.raises(errors.UpstreamFailed):
        await service.embed(*["a"] * (3 * subject.batch))


async def test_an_answer_without_usage_is_estimated(service: Client, upstream: Any, subject: Subject) -> None:
    """Where the provider counts nothing an estimate is charged, marked as such."""
    upstream.scripts.append(Script(counts=None))
    usage = (await service.embed("abcdefgh")).usage
    assert (usage.prompt_tokens, usage.exact) == (2, False)


async def test_a_caller_who_leaves_closes_the_upstream_socket(service: Client, upstream: Any) -> None:
    """The provider sees the hang-up at once."""
    script = Script(hold_at=0)
    upstream.scripts.append(script)
    call = service.call("a")
    await asyncio.wait_for(script.held.wait(), 30)
    call.cancel()
    await script.hung_up(service.turn)


async def test_a_caller_who_leaves_owes_what_was_read(tmp_path: Path) -> None:
    """Of a request that takes several calls: what the answered ones read as reported, of those in flight the most that
    their texts can have, and nothing of those that were not sent."""
    held = [Script(hold_at=0) for _ in range(SIDE_BY_SIDE)]
    async with keeping(TOKEN) as (kept, auth), embeddings.OpenAIEmbeddings() as upstream:
        upstream.scripts.extend([Script(), *held])
        provider: Row = {"id": "p", "makes": "embedding", "timeouts": TIMEOUTS, **_openai(upstream)}
        path = tmp_path / "catalogue.yaml"
        model: Row = {"id": "m", "provider": "p", "upstream": "text-embedding-3-small"}
        write_catalogue(path, [provider], [model])
        config = TextSettings(
            service_token=SecretStr(TOKEN), catalogue=path, listen="127.0.0.1:0", drain_s=0, auth_address=auth
        )
        async with (
            SERVICE.serve(config, {"OPENAI_API_KEY": "sk-good"}) as served,
            channel(f"127.0.0.1:{served.port}") as opened,
        ):
            request = pb.EmbedTextsRequest(model="m", provider="p", texts=["abc"] * 4 * (SIDE_BY_SIDE + 2))
            sent = metadata(TOKEN, "req-test", (calls.RESERVATION_KEY, "lease.1.4000.0"))
            call = EmbeddingServiceStub(opened).EmbedTexts(request, metadata=sent)
            # The last of these has its turn once the first call was answered.
            await asyncio.wait_for(asyncio.gather(*(script.held.wait() for script in held)), 30)
            call.cancel()
            turn = Client(opened).turn
            await asyncio.gather(*(script.hung_up(turn) for script in held))
    [settlement] = kept.settled
    assert settlement.usage.prompt_tokens == settlement.charged.tokens == 4 * 3 + SIDE_BY_SIDE * 4 * (3 + 4)
    assert not settlement.usage.exact
