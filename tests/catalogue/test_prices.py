"""What an answer costs by the catalogue: exactly, and rounded up once."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1.usage_pb2 import Usage
from moa.image.v1.image_pb2 import QUALITY_HIGH, QUALITY_LOW, QUALITY_UNSPECIFIED
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import ImagePrice, Model, Prices
from services.router.domain.bounds import Rates
from tests import shipped

NANO = 1_000_000_000
_USD = st.none() | st.integers(0, 10**9).map(lambda millionths: millionths / 10**6)
_COUNT = st.integers(0, 10**6)


def test_each_kind_of_token_costs_its_own_price() -> None:
    """A million tokens each of prompt (a quarter cached, a tenth written to the cache, a tenth images) and completion,
    a fifth of which is reasoning."""
    prices = Prices(input=4.0, cached=1.0, cache_write=5.0, image_input=8.0, output=10.0, reasoning=20.0)
    usage = Usage(
        prompt_tokens=1_000_000,
        cached_tokens=250_000,
        cache_write_tokens=100_000,
        prompt_image_tokens=100_000,
        completion_tokens=1_000_000,
        reasoning_tokens=200_000,
    )
    assert prices.nano_usd(usage) == round((2.2 + 0.25 + 0.5 + 0.8 + 8.0 + 4.0) * NANO)


def test_what_has_no_price_of_its_own_costs_as_its_whole() -> None:
    """A price for cached, written or reasoning tokens is not what every owner has."""
    usage = Usage(prompt_tokens=500_000, cached_tokens=500_000, completion_tokens=10, reasoning_tokens=10)
    assert Prices(input=2.0, output=1.0).nano_usd(usage) == NANO + 10_000


@given(_USD, _USD, _USD, _USD, _USD, _USD, st.tuples(*[_COUNT] * 6))
def test_a_sum_is_exact_and_rounded_up_once(
    price: float | None,
    cached: float | None,
    written: float | None,
    image: float | None,
    output: float | None,
    reasoning: float | None,
    counts: tuple[int, int, int, int, int, int],
) -> None:
    """Prices of six decimals and any counts: the least number of nano-dollars that is no less than the exact sum, and
    never more than the bound, whatever parts a provider claims."""
    prices = Prices(
        input=price or 0.0,
        cached=cached,
        cache_write=written,
        image_input=image,
        output=output or 0.0,
        reasoning=reasoning,
    )
    prompt, of_cache, to_cache, of_images, completion, thought = counts
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=of_cache,
        cache_write_tokens=to_cache,
        prompt_image_tokens=of_images,
        completion_tokens=completion,
        reasoning_tokens=thought,
    )
    old = min(of_cache, prompt)
    new = min(to_cache, prompt - old)
    shown_images = min(of_images, prompt - old - new)
    thoughts = min(thought, completion)

    def a_token(usd: float | None, otherwise: float | None) -> Fraction:
        shown = usd if usd is not None else otherwise or 0.0
        return Fraction(f"{shown:.6f}") * 1000

    exact = (
        (prompt - old - new - shown_images) * a_token(price, None)
        + shown_images * a_token(image, price)
        + old * a_token(cached, price)
        + new * a_token(written, price)
        + (completion - thoughts) * a_token(output, None)
        + thoughts * a_token(reasoning, output)
    )
    cost = prices.nano_usd(usage)
    assert cost == ceil(exact)
    rates = Rates.of([Model(id="m", provider="p", prices=prices)])
    assert cost <= rates.nano_usd(prompt, completion)
    if rates.completion:
        assert rates.affordable(rates.nano_usd(prompt, completion), prompt) >= completion


@pytest.mark.parametrize(
    ("size", "quality", "usd"),
    [
        ("1024x1024", QUALITY_LOW, 0.01),
        ("1536x1024", QUALITY_LOW, 0.02),
        ("1024x1024", QUALITY_HIGH, 0.2),
        ("", QUALITY_LOW, 0.02),
        ("1024x1024", QUALITY_UNSPECIFIED, 0.2),
        ("", QUALITY_UNSPECIFIED, 0.25),
        ("64x64", QUALITY_LOW, 0.25),
    ],
)
def test_an_image_costs_the_dearest_that_it_may_be(size: str, quality: int, usd: float) -> None:
    """By size and quality; what is not said may be anything, and what no price is for costs the most of all."""
    prices = Prices(
        images=(
            ImagePrice(usd=0.01, quality="low", size="1024x1024"),
            ImagePrice(usd=0.02, quality="low", size="1536x1024"),
            ImagePrice(usd=0.2, quality="high", size="1024x1024"),
            ImagePrice(usd=0.25, quality="high", size="1536x1024"),
        )
    )
    request = GenerateImageRequest(quality=quality)  # type: ignore[arg-type]
    if size:
        request.width, request.height = map(int, size.split("x"))
    assert prices.image_usd(request) == usd
    cost = Model(id="m", provider="p", prices=prices).image_cost(request)
    assert cost(Usage(images=3), "p", "m") == 3 * round(usd * NANO)


def test_images_that_are_priced_by_tokens_cost_what_their_tokens_do() -> None:
    """The price of an image is the bound then; where no tokens are reported, it is what the image costs."""
    prices = Prices(input=5, output=30, images=(ImagePrice(usd=0.2),))
    assert prices.nano_usd(Usage(images=1, prompt_tokens=10, completion_tokens=1000), 0.2) == 50_000 + 30_000_000
    assert prices.nano_usd(Usage(images=1), 0.2) == NANO // 5


def test_the_shipped_catalogue_has_prices_for_clouds_only() -> None:
    """Models of one's own cost nobody's money."""
    catalogue = shipped.catalogue()
    priced = {m.provider for m in catalogue.models if m.prices is not None}
    assert priced
    assert not any(provider.startswith("local-") for provider in priced)


def test_every_image_model_with_prices_has_a_bound_for_an_image() -> None:
    """What is priced by tokens is reserved by what an image costs at most, so that dollars bound it."""
    catalogue = shipped.catalogue()
    request = GenerateImageRequest()
    for model in catalogue.models:
        if catalogue.makes(model) == "image" and model.prices is not None and model.prices != Prices():
            assert model.prices.image_usd(request) > 0, model.full_id
