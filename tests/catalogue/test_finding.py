"""How a caller's name of a model is understood, and what is said of one that nobody has."""

from __future__ import annotations

import msgspec
import pytest

from services.auth.domain.keys import STYLES, make
from services.catalogue import Catalogue, Provider, UnknownModel, load, worded

FILE = """
providers:
  - {id: p, adapter: openai, makes: text, base_url: "http://x"}
  - {id: q, adapter: openai, makes: image, base_url: "http://x"}
  - {id: away, adapter: openai, makes: text, base_url: "http://y", credentials: {api_key: NOT_SET}}
models:
  - {id: writer-large, provider: p, aliases: [scribe-v2]}
  - {id: writer-small, provider: p}
  - {id: writer-largest, provider: away}
  - {id: writer-secret, provider: p}
  - {id: gpt-4o-mini, provider: p, aliases: [openai/gpt-4o-mini]}
  - {id: "anthropic.claude-sonnet-4-5-20250929-v1:0", provider: p, aliases: [claude-sonnet-4-5]}
  - {id: smollm2-135m, provider: p}
  - {id: all-minilm-l6-v2, provider: p}
  - {id: gpt-image-2, provider: q}
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("finding") / "catalogue.yaml"
    path.write_text(FILE)
    return load(path, {})


@pytest.mark.parametrize(
    ("name", "makes", "step"),
    [
        ("writer-larg", "", "use writer-large or writer-small"),
        ("scribe-v1", "", "use scribe-v2"),
        ("gpt-4", "text", "use gpt-4o-mini"),
        ("gpt-4", "", "use gpt-4o-mini or gpt-image-2"),
        ("GPT-4O-MINI", "text", "use gpt-4o-mini"),
        ("azure/gpt-4o-mini-2024-07-18", "text", "use gpt-4o-mini"),
        ("gpt-3.5-turbo", "text", "use gpt-4o-mini"),
        ("gpt-image-1", "image", "use gpt-image-2"),
        ("smollm2", "", "use smollm2-135m"),
        ("SmolLM2-135M-Instruct", "", "use smollm2-135m"),
        ("minilm", "", "use all-minilm-l6-v2"),
        ("claude", "", "use claude-sonnet-4-5"),
        ("claude-3-5-sonnet-20241022", "", "use anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("anthropic/claude-sonnet-4.5", "", "use claude-sonnet-4-5"),
        ("12", "", "ask the list"),
        ("llama-3.1-8b", "", "ask the list"),
        ("gpt-4" * 100_000, "", "ask the list"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(catalogue: Catalogue, name: str, makes: str, step: str) -> None:
    """By letters, by beginnings, by words: of models that can be asked for it, and that the caller may use."""
    with pytest.raises(UnknownModel) as refused:
        catalogue.find(name, makes=makes)
    assert refused.value.message == f"unknown model {name[:200]!r}"
    refusal = worded(refused.value, catalogue, lambda model: model.id != "writer-secret", listed="ask the list")
    assert refusal.message == f"unknown model {name[:200]!r}; {step}"
    assert refusal.param == "model"


def test_a_name_of_another_providers_is_not_told(catalogue: Catalogue) -> None:
    """Who names a provider is told its names alone."""
    with pytest.raises(UnknownModel) as refused:
        catalogue.find("gpt-4", provider="q")
    refusal = worded(refused.value, catalogue, lambda model: True, listed="ask the list")
    assert refusal.message == "unknown model 'gpt-4' of provider 'q'; use gpt-image-2"


def own(begins: str, name: str = "p") -> Provider:
    row = {"id": name, "adapter": "openai", "makes": "text", "base_url": "http://x", "caller_keys": begins}
    return msgspec.convert(row, Provider)


@pytest.mark.parametrize(
    ("key", "taker"),
    [
        ("vendor-1", "p"),
        ("other_1", "q"),
        ("vendor-", ""),
        ("vendor-1\n", ""),
        ("vendor-é", ""),
        ("vendor-" + "x" * 248, "p"),
        ("vendor-" + "x" * 249, ""),
        ("a-vendor-1", ""),
        ("", ""),
    ],
)
def test_a_key_is_its_providers_alone(key: str, taker: str) -> None:
    """A caller's own key is told by how it begins, and is good for the models of the providers that say so."""
    nobody = Provider(id="n", adapter="openai", makes="text", base_url="http://x")
    catalogue = Catalogue([own("vendor-"), own("other_", "q"), nobody], [], frozenset())
    assert [row.id for row in catalogue.providers.values() if row.takes_key(key)] == ([taker] if taker else [])
    assert catalogue.takes_key(key) is bool(taker)


@pytest.mark.parametrize("style", STYLES)
def test_the_gateways_own_keys_are_sent_to_no_provider(style: str) -> None:
    """A row that calls for keys which begin as this gateway's do is refused: each of those would be sent there."""
    secret = make(bytes(32), style).secret
    for begins in (secret[:3], secret[: len(style) + 1], secret[: len(style) + 2]):
        with pytest.raises(msgspec.ValidationError, match="caller_keys"):
            own(begins)
