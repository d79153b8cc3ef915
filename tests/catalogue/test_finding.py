"""How a caller's name of a model is understood, and what is said of one that nobody has."""

from __future__ import annotations

import pytest

from services.catalogue import Catalogue, load
from services.common.errors import ModelNotFound

FILE = """
providers:
  - {id: p, adapter: openai, makes: text, base_url: "http://x"}
  - {id: away, adapter: openai, makes: text, base_url: "http://y", credentials: {api_key: NOT_SET}}
models:
  - {id: writer-large, provider: p, aliases: [scribe-v2]}
  - {id: writer-small, provider: p}
  - {id: writer-largest, provider: away}
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("finding") / "catalogue.yaml"
    path.write_text(FILE)
    return load(path, {})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("writer-larg", "; use writer-large"),
        ("scribe-v1", "; use scribe-v2"),
        ("writer-smal", "; use writer-small"),
        ("gpt-99", ""),
    ],
)
def test_an_unknown_name_is_told_the_nearest(catalogue: Catalogue, name: str, told: str) -> None:
    """Of ids and aliases, and of models that can be asked."""
    with pytest.raises(ModelNotFound) as refused:
        catalogue.find(name)
    assert refused.value.message.startswith(f"unknown model {name!r}{told}")
    assert "writer-largest" not in refused.value.message
    with pytest.raises(ModelNotFound) as kept_back:
        catalogue.find(name, suggest=False)
    assert kept_back.value.message == f"unknown model {name!r}"
