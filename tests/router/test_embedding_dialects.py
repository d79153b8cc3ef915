"""Embeddings in the OpenAI and the Google dialect, by the official clients through the real edge, and over gRPC."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import openai
import pytest
import requests
from google import genai
from google.genai import errors as google_errors
from google.genai import types
from openai import OpenAI

from moa.embedding.v1 import embedding_service_pb2 as pb
from moa.embedding.v1 import embedding_service_pb2_grpc
from moa.router.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from services.common.errors import QuotaExhausted, UpstreamBroken
from tests.router.rig import KEY, OTHER_KEY, Played

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="module", params=[None, "v1"])
def google(request: pytest.FixtureRequest, url: str) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=url, api_version=request.param)
    with genai.Client(api_key=KEY, http_options=options) as made:
        yield made


def test_the_openai_client(client: OpenAI, played: Played) -> None:
    """The client, which asks for base64, has the numbers of each text in order, and what was read is charged."""
    made = client.embeddings.create(model="encoder", input=["a", "안녕"], dimensions=3, user="u")
    assert [len(each.embedding) for each in made.data] == [3, 3]
    assert [each.embedding[0] for each in made.data] == [1.0, 2.0]
    assert [each.index for each in made.data] == [0, 1]
    assert (made.model, made.object) == ("encoder", "list")
    assert (made.usage.prompt_tokens, made.usage.total_tokens) == (3, 3)
    [asked] = played.embedded
    assert (list(asked.texts), asked.dimensions, asked.user) == (["a", "안녕"], 3, "u")
    assert [usage and usage.prompt_tokens for usage in played.books.ended()] == [3]


def test_both_forms_say_the_same(client: OpenAI, played: Played, url: str) -> None:
    """Base64 holds little-endian floats of 32 bits; plain numbers are the same ones. Plain is the default."""
    body = {"model": "encoder", "input": "abc"}
    head = {"Authorization": f"Bearer {KEY}"}
    plain = requests.post(f"{url}/v1/embeddings", json=body, headers=head, timeout=20)
    packed = requests.post(f"{url}/v1/embeddings", json={**body, "encoding_format": "base64"}, headers=head, timeout=20)
    numbers = plain.json()["data"][0]["embedding"]
    assert list(struct.unpack("<4f", base64.b64decode(packed.json()["data"][0]["embedding"]))) == numbers
    assert plain.headers["x-moa-cost"] == "tokens=3"
    assert plain.headers["x-moa-model"] == "encoder"


@pytest.mark.parametrize(("given", "lists"), [([5, 6, 7], [[5, 6, 7]]), ([[5], [6, 7]], [[5], [6, 7]])])
def test_tokens(client: OpenAI, played: Played, given: Any, lists: list[list[int]]) -> None:
    """A list of numbers is one text, a list of lists are several."""
    made = client.embeddings.create(model="encoder", input=given)
    assert [list(each.tokens) for each in played.embedded[0].token_lists] == lists
    assert [each.embedding[0] for each in made.data] == [float(len(each)) for each in lists]


def test_as_many_texts_as_are_taken(client: OpenAI, played: Played) -> None:
    """2,048 texts are one request; one more is refused by name, and reserves nothing."""
    made = client.embeddings.create(model="encoder", input=["x" * (n % 7 + 1) for n in range(2048)], dimensions=64)
    assert [each.embedding[0] for each in made.data] == [float(n % 7 + 1) for n in range(2048)]
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="encoder", input=["x"] * 2049)
    assert refused.value.param == "input"
    assert len(played.embedded) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 8, "model": "plain-encoder"}, "dimensions"),
        ({"input": [1, 2], "model": "plain-encoder"}, "input"),
        ({"input": "a", "model": "smart"}, "model"),
    ],
)
def test_refusals_name_the_callers_field(url: str, played: Played, fields: dict[str, Any], param: str) -> None:
    """What is wrong, or cannot be had of the model, is 400 with the field as OpenAI calls it."""
    body = {"model": "encoder", **fields}
    answer = requests.post(f"{url}/v1/embeddings", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)
    assert not played.embedded


def test_failures_are_those_of_the_client(client: OpenAI, played: Played, url: str) -> None:
    """A quota, a broken answer, an unknown model and a stranger's key each raise what the client has for it."""
    played.refusal = QuotaExhausted("no tokens are left today", retry_after_s=60)
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="encoder", input="a")
    played.refusal = None
    played.script = [UpstreamBroken("broke")] * 3
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="encoder", input="a")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nobody", input="a")
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=OTHER_KEY).embeddings.create(model="encoder", input="a")


def test_what_nobody_knows_is_ignored_and_named(client: OpenAI, played: Played) -> None:
    """Another server's field does not refuse a request."""
    raw = client.embeddings.with_raw_response.create(model="encoder", input="a", extra_body={"input_type": "query"})
    assert raw.headers["x-moa-ignored"] == "input_type"


def test_the_google_client(google: genai.Client, played: Played) -> None:
    """The client's one method, which asks for a batch, has the vectors, and says what they are for."""
    config = types.EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT", title="t", output_dimensionality=5)
    contents: list[Any] = ["ab", "안녕 모아"]
    made = google.models.embed_content(model="encoder", contents=contents, config=config)
    assert made.embeddings is not None
    assert [(each.values or [])[0] for each in made.embeddings] == [2.0, 5.0]
    assert {len(each.values or ()) for each in made.embeddings} == {5}
    [asked] = played.embedded
    assert (asked.purpose, asked.title, asked.dimensions) == (pb.PURPOSE_DOCUMENT, "t", 5)
    assert asked.truncate


def test_one_content(url: str, played: Played) -> None:
    """`:embedContent` answers with one vector, in either spelling; the parts of a content are one text."""
    body = {"content": {"parts": [{"text": "ab"}, {"text": "cd"}]}, "task_type": "RETRIEVAL_QUERY"}
    answer = requests.post(
        f"{url}/v1beta/models/encoder:embedContent", json=body, headers={"x-goog-api-key": KEY}, timeout=20
    )
    assert answer.json()["embedding"]["values"][0] == 4.0
    assert answer.json()["usageMetadata"] == {"promptTokenCount": 4}
    assert played.embedded[0].purpose == pb.PURPOSE_QUERY


@pytest.mark.parametrize(
    ("method", "body", "field"),
    [
        ("embedContent", {"content": {"parts": []}}, "content"),
        ("embedContent", {"content": {"parts": [{"inlineData": {"data": "aa"}}]}}, "content"),
        ("embedContent", {"content": {"parts": [{"text": "a"}]}, "taskType": "SINGING"}, "taskType"),
        ("batchEmbedContents", {"requests": []}, "requests"),
        (
            "batchEmbedContents",
            {"requests": [{"content": {"parts": [{"text": "a"}]}, "title": t} for t in "ab"]},
            "requests[1]",
        ),
    ],
)
def test_googles_refusals(url: str, played: Played, method: str, body: Any, field: str) -> None:
    """What cannot be read as texts of one kind is refused in Google's envelope, by the field."""
    path = f"{url}/v1beta/models/encoder:{method}"
    answer = requests.post(path, json=body, headers={"x-goog-api-key": KEY}, timeout=20)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["status"] == "INVALID_ARGUMENT"
    assert error["details"][0]["metadata"]["field"].startswith(field)
    assert not played.embedded


def test_a_failure_in_googles_words(google: genai.Client, played: Played) -> None:
    """A quota raises the client's error with its status."""
    played.refusal = QuotaExhausted("no tokens are left today", retry_after_s=60)
    with pytest.raises(google_errors.ClientError) as refused:
        google.models.embed_content(model="encoder", contents="a")
    assert refused.value.code == 429


def test_listings_tell_what_a_model_is_for(client: OpenAI, google: genai.Client, url: str) -> None:
    """Embedding models stand in every list: in Google's with their methods, over gRPC with their kind."""
    assert "encoder" in [each.id for each in client.models.list()]
    found = google.models.get(model="encoder")
    assert found.supported_actions == ["embedContent", "batchEmbedContents"]
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        stub = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        asked = catalog_service_pb2.GetModelRequest(model="encoder")
        model = stub.GetModel(asked, metadata=(("x-api-key", KEY),), timeout=20).model
    assert model.kind == catalog_service_pb2.MODEL_KIND_EMBEDDING


def test_over_grpc(played: Played, url: str) -> None:
    """The same from generated stubs, with who answered in the headers."""
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        request = pb.EmbedTextsRequest(model="p-embedding/encoder", texts=["abc"])
        answer, call = stub.EmbedTexts.with_call(request, metadata=(("x-api-key", KEY),), timeout=20)
    assert (answer.model, answer.embeddings[0].values[0], answer.usage.prompt_tokens) == ("encoder", 3.0, 3)
    assert dict(call.initial_metadata())["x-moa-provider"] == "p-embedding"
