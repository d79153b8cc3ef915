"""What an answer costs by the catalogue: exactly, and rounded up once."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1.usage_pb2 import Usage
from moa.image.v1.image_pb2 import QUALITY_HIGH, QUALITY_LOW, QUALITY_UNSPECIFIED
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import (
    FEMTO_A_NANO,
    Catalogue,
    ImagePrice,
    Model,
    Price,
    Prices,
    PriceTier,
    Provider,
    in_integers,
)
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
    assert in_integers(prices).nano_usd(usage) == round((2.2 + 0.25 + 0.5 + 0.8 + 8.0 + 4.0) * NANO)


def test_what_has_no_price_of_its_own_costs_as_its_whole() -> None:
    """A price for cached, written or reasoning tokens is not what every owner has."""
    usage = Usage(prompt_tokens=500_000, cached_tokens=500_000, completion_tokens=10, reasoning_tokens=10)
    assert in_integers(Prices(input=2.0, output=1.0)).nano_usd(usage) == NANO + 10_000


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
    cost = in_integers(prices).nano_usd(usage)
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
    assert in_integers(prices).image_nano(request) == round(usd * NANO)
    cost = Model(id="m", provider="p", prices=prices).image_cost(request)
    assert cost(Usage(images=3), "p", "m") == 3 * round(usd * NANO)


def test_images_that_are_priced_by_tokens_cost_what_their_tokens_do() -> None:
    """The price of an image is the bound then; where no tokens are reported, it is what the image costs."""
    price = in_integers(Prices(input=5, output=30, images=(ImagePrice(usd=0.2),)))
    bound = NANO // 5
    assert price.nano_usd(Usage(images=1, prompt_tokens=10, completion_tokens=1000), bound) == 50_000 + 30_000_000
    assert price.nano_usd(Usage(images=1), bound) == bound


def test_the_shipped_catalogue_has_prices_for_clouds_only() -> None:
    """Models of one's own cost nobody's money."""
    catalogue = shipped.catalogue()
    priced = {m.provider for m in catalogue.models if m.price_list}
    assert priced
    assert not any(provider.startswith("local-") for provider in priced)


def test_every_image_model_with_prices_has_a_bound_for_an_image() -> None:
    """What is priced by tokens is reserved by what an image costs at most, so that dollars bound it."""
    catalogue = shipped.catalogue()
    request = GenerateImageRequest()
    for model in catalogue.models:
        for price in model.price_list if catalogue.makes(model) == "image" else ():
            assert price.image_nano(request) > 0, model.full_id


TIERED = Prices(
    input=1.0,
    cached=0.1,
    output=5.0,
    image_output=30.0,
    tiers=(PriceTier(above=200_000, input=2.0, output=7.5), PriceTier(above=500_000, input=4.0)),
)


@pytest.mark.parametrize(
    ("prompt", "cached", "completion", "micro_usd"),
    [(200_000, 0, 1000, 205_000), (200_001, 0, 1000, 407_502), (600_000, 100_000, 1000, 2_017_500)],
)
def test_a_long_prompt_costs_all_its_tokens_by_its_tier(
    prompt: int, cached: int, completion: int, micro_usd: int
) -> None:
    """What a tier does not price costs as in the shorter ones; the bound of such a prompt is no lower."""
    usage = Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    cost = in_integers(TIERED).nano_usd(usage)
    assert cost == micro_usd * 1000
    model = Model(id="m", provider="p", prices=TIERED)
    assert cost <= Rates.of([model], prompt).nano_usd(prompt, completion)


def test_a_prompt_that_cannot_reach_a_tier_is_not_reserved_by_it() -> None:
    """The bound goes by the tiers that the prompt may reach; without a bound of it, by all."""
    model = Model(id="m", provider="p", prices=TIERED)
    assert Rates.of([model], 1000).nano_usd(1000, 0) == 1000 * 1000
    assert Rates.of([model]).nano_usd(1000, 0) == 1000 * 4000


def test_images_of_an_answer_cost_their_own_price() -> None:
    """Beside text and reasoning; where the provider does not tell them apart, what is not reasoning is images."""
    price = in_integers(Prices(output=3.0, reasoning=1.0, image_output=60.0))
    told = Usage(images=1, completion_tokens=1000, reasoning_tokens=100, completion_image_tokens=800)
    assert price.nano_usd(told) == 100 * 1000 + 800 * 60_000 + 100 * 3000
    untold = Usage(images=1, completion_tokens=1000, reasoning_tokens=100)
    assert price.nano_usd(untold) == 100 * 1000 + 900 * 60_000
    assert price.most()[1] == 60_000 * FEMTO_A_NANO


def test_a_request_costs_what_held_when_it_began() -> None:
    """A price that changes while it runs, or a catalogue that is read anew, leaves it as it was: what tells the cost is
    made at its beginning."""
    old, new = Prices(input=1.0), Prices(since=dt.date(2027, 1, 1), input=2.0)
    model = Model(id="m", provider="p", prices=(old, new))
    usage = Usage(prompt_tokens=1000)
    catalogue = Catalogue([Provider(id="p", adapter="openai", makes="text")], [model], frozenset())
    last_day, first_day = dt.date(2026, 12, 31), dt.date(2027, 1, 1)
    assert catalogue.cost_on(last_day)(usage, "p", "m") == 1_000_000
    assert catalogue.cost_on(first_day)(usage, "p", "m") == 2_000_000
    assert [model.cost_on(day)(usage, "p", "m") for day in (last_day, first_day)] == [1_000_000, 2_000_000]
    assert Rates.of([model], day=first_day).nano_usd(1000, 0) == 2_000_000


def test_bounds_of_images_alone_stand_beside_known_prices() -> None:
    """A row that says nothing but what an image costs at most keeps what the kept facts tell of its tokens."""
    known = (Price(since=dt.date(2026, 1, 1), input=5, image_output=30),)
    model = Model(id="m", provider="p", prices=Prices(images=(ImagePrice(usd=0.2),)), known_prices=known)
    (price,) = model.price_list
    assert (price.input, price.image_output, price.dearest_image()) == (5, 30, NANO // 5)
    own = Model(id="m", provider="p", prices=Prices(input=1.0), known_prices=known)
    assert [price.input for price in own.price_list] == [NANO]


def test_sound_costs_its_own_price_and_is_reserved_where_it_may_be() -> None:
    """Files may be sound; without any, no text is reserved by the price of sound."""
    prices = Prices(input=1.0, cached=0.1, audio_input=3.0)
    usage = Usage(prompt_tokens=100, cached_tokens=20, prompt_audio_tokens=90)
    assert in_integers(prices).nano_usd(usage) == 20 * 100 + 80 * 3000, "no more than what is not cached"
    model = Model(id="m", provider="p", prices=prices)
    assert [Rates.of([model], sound=sound).nano_usd(100, 0) for sound in (False, True)] == [100_000, 300_000]


def test_batches_are_asked_for_where_a_configured_provider_or_a_model_of_it_has_a_price_of_them() -> None:
    """A catalogue tells so with providers too that only look at pictures for others."""
    eyes, half = Provider(id="eyes", adapter="inference", makes="vision"), 0.5

    def asked(provider: Provider, model: Model, *, configured: bool = True) -> bool:
        known = frozenset({"eyes", "p"} if configured else {"eyes"})
        catalogue = Catalogue([eyes, provider], [model], known)
        assert catalogue.configured == known - {"eyes"}, "it names those alone that calls may find"
        return catalogue.has_batches

    plain, batched = (Provider(id="p", adapter="openai", makes="text", batch_price_factor=f) for f in (None, half))
    model, cheap = (Model(id="m", provider="p", batch_price_factor=factor) for factor in (None, half))
    assert not asked(plain, model)
    assert asked(batched, model)
    assert asked(plain, cheap)
    assert not asked(batched, cheap, configured=False)


def test_a_batchs_tokens_from_the_cache_may_cost_another_part_of_their_price() -> None:
    """Some providers ask half for a batch's tokens, and the whole price for those that their cache had already."""
    usage = Usage(prompt_tokens=100, cached_tokens=20, completion_tokens=10)
    model = Model(id="m", provider="p", prices=Prices(input=2.0, cached=0.2, output=8.0))

    def cost(factor: float | None, cached: float | None) -> int | None:
        provider = Provider(
            id="p", adapter="gemini", makes="text", batch_price_factor=factor, batch_cached_factor=cached
        )
        return Catalogue([provider], [model], frozenset({"p"})).batch_cost_on()(usage, "p", "m")

    plain, cached = 80 * 2_000 + 10 * 8_000, 20 * 200
    assert [cost(None, None), cost(0.5, None), cost(0.5, 1), cost(None, 1)] == [
        plain + cached,
        (plain + cached) // 2,
        plain // 2 + cached,
        plain + cached,
    ]
