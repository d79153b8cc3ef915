"""Servers of one's own: what one base URL stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.catalogue import Catalogue, CatalogueError, Listed, ListedModel, Watched, load

NOTHING = "providers: []\nmodels: []\n"


def named(path: Path, value: str, text: str = NOTHING) -> Catalogue:
    """Return what a file and the variable's value make together."""
    path.write_text(text)
    return load(path, {"MOA_SERVERS": value, "KEY": "k"})


@pytest.mark.parametrize(
    ("value", "providers"),
    [
        ("http://gpu1:8000", "gpu1-8000"),
        ("https://models.example.com/v1", "models.example.com"),
        ("box=http://10.0.0.7:11434/", "box"),
        ("http://[fd00::1]:8000", "fd00--1-8000"),
        ("a=http://h?x=1", "a"),
    ],
)
def test_a_server_is_one_base_url(tmp_path: Path, value: str, providers: str) -> None:
    """Its name is the one before it, else its host's and port's; it may have all that there is."""
    catalogue = named(tmp_path / "c.yaml", value)
    assert catalogue.configured == {f"{providers}-{makes}" for makes in ("text", "embedding", "image")}
    listed = {f"{providers}-embedding": Listed(models={"e5:latest": ListedModel(id="e5:latest", makes="embedding")})}
    joined = catalogue.with_listed(listed)
    for name in (f"{providers}/e5:latest", "e5:latest"):
        assert joined.find(name).full_id == f"{providers}-embedding/e5:latest"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("gpu1:8000", "no http or https URL"),
        ("ftp://gpu1", "no http or https URL"),
        ("http://user:secret@gpu1", "no http or https URL"),
        ("http://gpu1:80000", "no http or https URL"),
        ("a b=http://gpu1", "is no name"),
        ("http://gpu1,http://gpu1", "share a name"),
        ("vllm=http://gpu1", "provider vllm-embedding already"),
        (",".join(f"s{number}=http://h" for number in range(51)), "more than 50"),
    ],
)
def test_a_bad_entry_is_told(tmp_path: Path, value: str, fault: str) -> None:
    """With the variable's name; a key has no place in an address."""
    with pytest.raises(CatalogueError, match=f"MOA_SERVERS: .*{fault}"):
        named(tmp_path / "c.yaml", value, f"{NOTHING}servers: [{{id: vllm, base_url: http://x}}]\n")


def test_a_row_says_what_is_served(tmp_path: Path) -> None:
    """Which models, what they cost, and what the server asks for; one without an address is not configured."""
    path = tmp_path / "c.yaml"
    rows = """
servers:
  - {id: box, base_url: "http://x", credentials: {api_key: KEY}, deny: ["*:70b"], prices: {output: 2}}
  - {id: away, base_url: "${NOWHERE}"}
"""
    catalogue = named(path, "", NOTHING + rows)
    assert catalogue.configured == {"box-text", "box-embedding", "box-image"}
    assert catalogue.providers["box-text"].credentials == {"api_key": "KEY"}
    models = {name: ListedModel(id=name, makes="text") for name in ("llama:8b", "llama:70b")}
    joined = catalogue.with_listed({"box-text": Listed(models=models)})
    assert [model.full_id for model in joined.discovered] == ["box-text/llama:8b"]
    price = joined.find("box/llama:8b").price()
    assert price is not None
    assert price.output == 2_000_000_000


def test_what_is_listed_stays_when_the_file_changes(tmp_path: Path) -> None:
    """A model that its server calls by a path is asked for by that path, and one that is said not to see is told."""
    path = tmp_path / "c.yaml"
    path.write_text(NOTHING)
    watched = Watched(path, {"MOA_SERVERS": "box=http://x"})
    model = ListedModel(id="a.gguf", upstream="/models/a.gguf", makes="text", lacks=frozenset({"vision"}))
    watched.relist({"box-text": Listed(models={"a.gguf": model}, unavailable="it is gone"), "other": Listed(models={})})
    found = watched.now.find("box/a.gguf")
    assert (found.id, found.name, found.can("vision"), found.can("tools")) == ("a.gguf", "/models/a.gguf", False, True)
    assert watched.now.unavailable("box-text") == "it is gone"
    watched.relist({})
    assert (watched.now.find("box/a.gguf").name, watched.now.unavailable("box-text")) == ("a.gguf", "")
