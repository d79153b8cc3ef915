"""What pictures cost at most: never less than by the rule that each vendor publishes."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, sqrt
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.catalogue import CatalogueError, Model, load
from services.catalogue._pictures import UNKNOWN
from services.common.images import MAX_SIDE
from tests.catalogue.test_shipped_catalogue import CATALOGUE

SEEING = [model for model in CATALOGUE.models if model.can("vision")]
SIZES = st.integers(1, MAX_SIDE) | st.sampled_from([1, 384, 385, 512, 513, 768, 769, 2048, 2049, MAX_SIDE])


def _tiles(base: int, each: int, whole: Callable[[float], int]) -> Callable[[int, int], float]:
    """OpenAI's tiles (guides/images-vision), with a way to come to whole pixels."""

    def tokens(width: int, height: int) -> float:
        scale = min(1.0, 2048 / max(width, height))
        width, height = max(1, whole(width * scale)), max(1, whole(height * scale))
        scale = min(1.0, 768 / min(width, height))
        width, height = max(1, whole(width * scale)), max(1, whole(height * scale))
        return base + each * ceil(width / 512) * ceil(height / 512)

    return tokens


def _patches(most: int, each: float) -> Callable[[int, int], float]:
    """OpenAI's patches (guides/images-vision): shrunk so that a whole number of them covers the picture."""

    def tokens(width: int, height: int) -> float:
        patches = ceil(width / 32) * ceil(height / 32)
        if patches > most:
            ratio = sqrt(32 * 32 * most / (width * height))
            across, down = width * ratio / 32, height * ratio / 32
            ratio *= min(max(1, floor(across)) / across, max(1, floor(down)) / down)
            patches = min(most, ceil(width * ratio / 32) * ceil(height * ratio / 32))
        return patches * each

    return tokens


def _gemini_2(width: int, height: int) -> float:
    """Google's crops (gemini-api/docs/tokens, and Vertex AI's page of the same rule)."""
    if max(width, height) <= 384:
        return 258
    unit = min(max(min(width, height) / 1.5, 256), 768)
    return 258 * ceil(width / unit) * ceil(height / unit)


def _claude_area(width: int, height: int) -> float:
    """Anthropic's area (build-with-claude/vision, until 2026): a long side of 1568, about 1,600 tokens at the most."""
    scale = min(1.0, 1568 / max(width, height))
    return min(1600.0, width * height * scale * scale / 750)


def _claude_patches(width: int, height: int) -> float:
    """Anthropic's patches (build-with-claude/vision): 28 px, 1,568 at the most."""
    scale = min(1.0, 1568 / max(width, height))
    return min(1568, ceil(width * scale / 28) * ceil(height * scale / 28))


VENDORS: dict[str, list[Callable[[int, int], float]]] = {
    "gpt-4o-mini": [_tiles(2833, 5667, floor), _tiles(2833, 5667, round), _tiles(2833, 5667, ceil)],
    "gpt-5-mini": [_patches(1536, 1.62)],
    "gpt-6": [_patches(10_000, 1.2), _patches(1536, 2.46), _patches(2500, 1.2)],
    "gemini-3": [lambda width, height: 1120],
    "gemini-2": [_gemini_2],
    "anthropic.claude": [_claude_area, _claude_patches],
    "amazon.nova": [],
}
NEW = (
    "gemini-4",
    "claude-",
    "anthropic.claude-opus-5",
    "anthropic.claude-sonnet-5",
    "anthropic.claude-haiku-5",
    "amazon.nova-2",
)
"""Of whose rule nothing is kept: they are bounded by the dearest that there is."""


def _rules_of(model: Model) -> list[Callable[[int, int], float]]:
    if model.id.startswith(NEW):
        return []
    return next(rules for name, rules in VENDORS.items() if model.id.startswith(name))


@pytest.mark.parametrize("model", SEEING, ids=lambda model: model.full_id)
def test_every_row_that_sees_has_a_rule_or_the_dearest(model: Model) -> None:
    """The catalogue that ships leaves none to the unknown whose owner's rule is kept here, and guesses none."""
    assert (model.image_tokens is None) == model.id.startswith(NEW)
    assert model.picture_rule is UNKNOWN or _rules_of(model) is not None


@pytest.mark.parametrize("model", SEEING, ids=lambda model: model.full_id)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(width=SIZES, height=SIZES)
@example(width=MAX_SIDE, height=MAX_SIDE)
@example(width=2048, height=768)
@example(width=MAX_SIDE, height=385)
def test_no_picture_costs_more_than_its_bound(model: Model, width: int, height: int) -> None:
    """The bound is no less than the vendor's rule for any size, and no more than the most without one."""
    bound = model.picture_rule.of(width, height)
    for rule in _rules_of(model):
        assert bound >= rule(width, height)
    assert bound <= model.picture_rule.most()
    assert bound <= UNKNOWN.of(width, height) <= UNKNOWN.most()


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(900, 450, 800), (900, 900, 1300), (1400, 900, 1800), (1800, 900, 2400), (1300, 1300, 2600)],
)
def test_novas_examples_are_bounded(width: int, height: int, tokens: int) -> None:
    """Amazon publishes these alone (nova/latest/userguide, image understanding)."""
    assert CATALOGUE.find("amazon.nova-pro-v1:0").picture_rule.of(width, height) >= tokens


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        ("openai-text/gpt-4o-mini", 1024, 1024, 2833 + 4 * 5667),
        ("openai-text/gpt-4o-mini", 2048, 4096, 2833 + 6 * 5667),
        ("openai-text/gpt-4o-mini", 128, 64, 2833 + 5667),
        ("openai-text/gpt-5-mini", 1024, 1024, 1659),
        ("gemini-text/gemini-2.5-flash", 384, 384, 258),
        ("gemini-text/gemini-2.5-flash", 960, 540, 6 * 258),
    ],
)
def test_the_bound_is_tight_where_the_rule_is_exact(model: str, width: int, height: int, tokens: int) -> None:
    """Vendors' own examples come out to the token: a caller's quota is not held back for nothing."""
    assert CATALOGUE.find(model).picture_rule.of(width, height) == tokens


@pytest.mark.parametrize(
    "rule", ["{rule: squares}", "{rule: tiles, base: 1}", "{rule: flat, each: -1}", "{rule: patches, side: 0}", "3"]
)
def test_a_rule_that_is_none_is_refused(tmp_path: Path, rule: str) -> None:
    """A row that says something else does not load."""
    file = tmp_path / "catalogue.yaml"
    file.write_text(
        "providers: [{id: p, adapter: openai, makes: text, base_url: 'http://h'}]\n"
        f"models: [{{id: m, provider: p, image_tokens: {rule}}}]\n"
    )
    with pytest.raises(CatalogueError, match="image_tokens"):
        load(file, {})
