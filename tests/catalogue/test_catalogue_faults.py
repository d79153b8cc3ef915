"""What is said to whoever made a mistake in the catalogue's file, and that what was read before goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.catalogue import CatalogueError, Watched, load

GOOD = """\
providers:
- {id: openai-text, adapter: openai, makes: text, base_url: "http://x", timeouts: {first_token_s: 5}}
- {id: other, adapter: openai, makes: text, base_url: "http://x"}
models:
- {id: small, provider: openai-text, defaults: {temperature: 1, top_k: 40}}
- {id: large, provider: openai-text, fallback: [small], capabilities: [vision, tools],
   limits: {stop: 4, thinking: level, size: {min: 8, max: 64}}}
"""


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ("fallback:", "fallbak:", "model large: Object contains unknown field `fallbak`; did you mean 'fallback'?"),
        (
            "first_token_s",
            "first_tokn_s",
            "provider openai-text: timeouts: Object contains unknown field `first_tokn_s`;"
            " did you mean 'first_token_s'?",
        ),
        ("makes: text", "makes: txt", "provider openai-text: makes: Invalid enum value 'txt'; did you mean 'text'?"),
        ("first_token_s: 5", "first_token_s: five", "provider openai-text: timeouts.first_token_s: Expected `float`"),
        ("models:", "modells:", "Object contains unknown field `modells`; did you mean 'models'?"),
        ("{id: small, p", "{ix: small, p", "model number 1: Object contains unknown field `ix`"),
        (
            "large, provider: openai-text",
            "large, provider: opnai-text",
            "model large: provider: there is no 'opnai-text'; did you mean 'openai-text'?",
        ),
        ("[small]", "[smal]", "model openai-text/large: fallback: there is no 'smal'; did you mean 'small'?"),
        ("[small]", "[nobody]", "model openai-text/large: fallback: there is no 'nobody'"),
        ("vision", "visoin", "model large: capabilities: nobody knows 'visoin'; did you mean 'vision'?"),
        ("stop: 4", "stops: 4", "model large: limits: Object contains unknown field `stops`; did you mean 'stop'?"),
        ("level", "levle", "model large: limits.thinking: Invalid enum value 'levle'; did you mean 'level'?"),
        ("min: 8", "mim: 8", "model large: limits.size: Object contains unknown field `mim`; did you mean 'min'?"),
        ("top_k:", "topk:", "model small: defaults: nobody knows 'topk'; did you mean 'top_k'?"),
        ("temperature: 1", "temperature: 3", "model small: defaults.temperature: temperature must be from 0 to 2"),
        ("top_k: 40", "top_k: many", "model small: defaults.top_k: 'many' is not a value of the field"),
        ("first_token_s: 5}", "first_token_s: 5}, pool: gpu", "provider openai-text: pool: only the"),
        ("models:", "models: [", "line 5, column 1: did not find expected node content (while parsing a flow node"),
        ("models:", "\tmodels:", "line 4, column 1: found character that cannot start any token"),
    ],
)
def test_a_fault_is_named_by_its_row_its_field_and_the_nearest_word(
    tmp_path: Path, good: str, bad: str, told: str
) -> None:
    """One line: the file, the row by its id, the field, what is wrong, and what was probably meant, if anything was."""
    path = tmp_path / "catalogue.yaml"
    path.write_text(GOOD)
    load(path, {})
    assert good in GOOD
    path.write_text(GOOD.replace(good, bad, 1))
    with pytest.raises(CatalogueError) as refused:
        load(path, {})
    said = str(refused.value)
    assert said.startswith(f"{path}: {told}")
    assert "\n" not in said
    assert ("did you mean" in said) == ("did you mean" in told)


async def test_a_refused_change_is_shown_until_it_is_mended(tmp_path: Path) -> None:
    """What was read before is kept, with the reason at hand and the metric at 1; a good file ends both."""

    def gauge() -> float | None:
        return REGISTRY.get_sample_value("moa_catalogue_refused")

    path = tmp_path / "catalogue.yaml"
    path.write_text(GOOD)
    watched = Watched(path, {})
    assert (watched.refused, gauge()) == ("", 0)
    before = watched.now
    watching = asyncio.create_task(watched.watch(every_s=0.01))
    try:
        _put(path, GOOD.replace("fallback:", "fallbak:"))
        async with asyncio.timeout(60):
            while not watched.refused:
                await asyncio.sleep(0.01)
        assert "did you mean 'fallback'?" in watched.refused
        assert watched.now is before
        assert gauge() == 1
        _put(path, GOOD)
        async with asyncio.timeout(60):
            while watched.refused:
                await asyncio.sleep(0.01)
        assert gauge() == 0
        assert watched.now is not before
    finally:
        watching.cancel()


def _put(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
