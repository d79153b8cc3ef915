"""A model's name, which may be a caller's word, is one segment of an address, whatever it holds."""

from __future__ import annotations

import pytest

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.image.targets import ADAPTERS as IMAGES
from services.providers.text.ignored import Ignored
from services.text.embedding import ADAPTERS as EMBEDDINGS
from services.text.targets import ADAPTERS
from tests.text.harness import chat

NAME = "a/../b"
SEGMENT = "a%2F..%2Fb"


@pytest.mark.parametrize("adapter", ["azure", "gemini", "bedrock"])
def test_a_name_leads_nowhere_else(adapter: str) -> None:
    """Slashes and dots of a name do not climb out of its place, whatever is asked for."""
    provider = Provider(id="p", adapter=adapter, makes="text", base_url="http://host/base")
    model = Model(id=NAME, provider="p")
    urls = [
        ADAPTERS[adapter].request_from(chat(), model, provider, Ignored()).url,
        EMBEDDINGS[adapter].calls_from(EmbedTextsRequest(texts=["x"]), model, provider)[0].outgoing.url,
        IMAGES[adapter].calls_from(GenerateImageRequest(prompt="x", count=1), model, provider)[0].outgoing.url,
    ]
    for url in urls:
        path = url.raw_path
        assert path.startswith("/base/"), path
        assert path.count(SEGMENT) == 1, path


def test_no_bound_is_made_up_for_converse() -> None:
    """A model whose longest answer nobody knows is asked without one: Converse takes the model's own."""
    provider = Provider(id="p", adapter="bedrock", makes="text", base_url="http://host")
    unknown = Model(id="m", provider="p")
    assert b"maxTokens" not in bytes(ADAPTERS["bedrock"].request_from(chat(), unknown, provider, Ignored()).body)
    known = Model(id="m", provider="p", max_output_tokens=77)
    assert b'"maxTokens":77' in bytes(ADAPTERS["bedrock"].request_from(chat(), known, provider, Ignored()).body)
