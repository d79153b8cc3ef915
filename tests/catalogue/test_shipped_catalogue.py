"""The catalogue that ships says of every cloud model what an operator and a caller need to know."""

from __future__ import annotations

import pytest

from services.catalogue import Catalogue, Model, UnknownModel, load
from tests import shipped

CATALOGUE: Catalogue = shipped.catalogue()
CLOUD = [model for model in CATALOGUE.models if CATALOGUE.providers[model.provider].service != "inference"]


def _last(model: Model) -> Model:
    while model.retirement is not None:
        model = CATALOGUE.find(model.retirement.successor)
    return model


@pytest.mark.parametrize("model", CLOUD, ids=lambda model: model.full_id)
def test_each_model_has_its_price_and_bounds(model: Model) -> None:
    """Every one has a price; those of text a context and a longest answer, those of images a longest prompt, those
    of embeddings a longest text."""
    price = model.price()
    assert price is not None
    if CATALOGUE.makes(model) == "text":
        assert 0 < model.max_output_tokens <= model.context_tokens
        assert not model.default_max_tokens, "no cap that nobody asked for"
        assert price.image is None
    elif CATALOGUE.makes(model) == "embedding":
        assert model.context_tokens
        assert (price.image or 0, price.output or 0) == (0, 0)
    else:
        assert model.limits.prompt_chars


@pytest.mark.parametrize("model", [m for m in CLOUD if m.retirement], ids=lambda model: model.full_id)
def test_each_retired_model_has_a_living_successor(model: Model) -> None:
    """The line of successors ends with a model that makes the same, and changes images where the first one did."""
    last = _last(model)
    assert CATALOGUE.makes(last) == CATALOGUE.makes(model)
    assert last.can("edit") or not model.can("edit")
    assert last.can("vision") or not model.can("vision")


def test_callers_may_bring_keys_of_google() -> None:
    """A key of Google's shape is good for all that its API makes, and for nobody else's models."""
    takers = {name for name, row in CATALOGUE.providers.items() if row.takes_key("AIza" + "x" * 35)}
    assert takers == {"gemini-text", "gemini-image", "gemini-embedding"}


KEYS = {
    "OPENAI_API_KEY": "k",
    "GEMINI_API_KEY": "k",
    "ANTHROPIC_API_KEY": "k",
    "AWS_BEARER_TOKEN_BEDROCK": "k",
    "AZURE_OPENAI_ENDPOINT": "https://x",
    "AZURE_OPENAI_API_KEY": "k",
    "VLLM_BASE_URL": "http://x",
}


@pytest.fixture(scope="module")
def keyed() -> Catalogue:
    """The catalogue that ships, where every provider has its key."""
    return load(shipped.SHIPPED, KEYS)


@pytest.mark.parametrize(
    ("name", "makes", "found", "thinking"),
    [
        ("openai/gpt-99", "text", "openai-text/gpt-99", None),
        ("openai/ft:gpt-99:me::1", "text", "openai-text/ft:gpt-99:me::1", None),
        ("openai/text-embedding-99", "embedding", "openai-embedding/text-embedding-99", None),
        ("openai/gpt-image-99", "image", "openai-image/gpt-image-99", None),
        ("openai/gpt-99-realtime", "text", "", None),
        ("models/gemini-99-pro", "text", "gemini-text/gemini-99-pro", "level"),
        ("gemini/gemini-2.9-pro", "text", "gemini-text/gemini-2.9-pro", None),
        ("google/gemini-99-flash-image", "image", "gemini-image/gemini-99-flash-image", None),
        ("google/imagen-99.0-generate-001", "image", "gemini-image/imagen-99.0-generate-001", None),
        ("models/gemini-embedding-99", "embedding", "gemini-embedding/gemini-embedding-99", None),
        ("anthropic/claude-opus-9", "text", "anthropic-text/claude-opus-9", "adaptive"),
        ("anthropic/claude-sonnet-4-6", "text", "anthropic-text/claude-sonnet-4-6", "adaptive"),
        ("anthropic/claude-haiku-4-5-20251001", "text", "anthropic-text/claude-haiku-4-5-20251001", None),
        ("bedrock/us.anthropic.claude-opus-9", "text", "aws-bedrock-text/us.anthropic.claude-opus-9", "adaptive"),
        ("bedrock/anthropic.claude-3-9-sonnet-v1:0", "text", "aws-bedrock-text/anthropic.claude-3-9-sonnet-v1:0", None),
        ("bedrock/arn:aws:bedrock:x:1:p/y", "text", "aws-bedrock-text/arn:aws:bedrock:x:1:p/y", None),
        (
            "bedrock/amazon.titan-embed-text-v9:0",
            "embedding",
            "aws-bedrock-embedding/amazon.titan-embed-text-v9:0",
            None,
        ),
        ("bedrock/stability.sd9-v1:0", "image", "aws-bedrock-image/stability.sd9-v1:0", None),
        ("azure/mine", "text", "azure-openai-text/mine", None),
        ("azure/mine", "embedding", "azure-openai-embedding/mine", None),
        ("azure/mine", "image", "azure-openai-image/mine", None),
        ("vllm/Qwen/Qwen9-8B", "text", "vllm-text/Qwen/Qwen9-8B", None),
    ],
)
def test_any_id_of_a_provider_with_a_key_is_served(
    keyed: Catalogue, name: str, makes: str, found: str, thinking: str | None
) -> None:
    """No edit of the file is needed for a model that came out today: its provider, and what it makes, are found."""
    try:
        model = keyed.find(name, makes=makes)
    except UnknownModel:
        assert not found
    else:
        assert (model.full_id, model.limits.thinking) == (found, thinking)
        assert keyed.makes(model) == makes
        assert makes != "image" or model.limits.ratios or model.limits.sizes, "how a shape is said is the family's"


def test_nothing_of_ones_own_costs_dollars(keyed: Catalogue) -> None:
    """A compatible server's models may be used under a limit in dollars; a cloud's of unknown price may not."""
    assert not keyed.find("vllm/any").lacks_price
    assert keyed.find("openai/gpt-99").lacks_price
