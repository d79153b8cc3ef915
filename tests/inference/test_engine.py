"""The image engine's promises, tick by tick: fairness, priorities, bounds, and what fails alone."""

from __future__ import annotations

import functools
import itertools
import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from inference.image.ask import ImageAsk
from services.common import errors
from tests.inference.bench import Bench, Taken
from tests.inference.pipes import built

TIGHT = 11 << 20
"""Bytes in which a 128x128 picture fits, but not four of them: decoding one takes 10 MB, a lane 1.6 MB."""

Make = Callable[..., Bench]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make benches over one small pipeline with random weights: what is tried here is the engine."""
    folder = built("sd", tmp_path_factory.mktemp("engine") / "sd")
    return functools.partial(Bench, folder)


def ask(seed: int = 1, steps: int = 6, **fields: Any) -> ImageAsk:
    fields.setdefault("width", 64)
    fields.setdefault("height", 64)
    return ImageAsk(prompt="a red circle", seed=seed, steps=steps, **fields)


def watch_lanes(bench: Bench) -> list[list[tuple[str, int]]]:
    """Note each tick's lanes by tenant from here on."""
    ticks: list[list[tuple[str, int]]] = []
    took = bench.engine.queue.took

    def noted(batch: list[Any], seconds: float) -> None:
        ticks.append([(p.order.flow.tenant, p.lanes) for p in batch])
        took(batch, seconds)

    bench.engine.queue.took = noted  # type: ignore[method-assign]
    return ticks


def done(taken: Taken) -> bool:
    return bool(taken.of("Done") or taken.of("Failed"))


def test_a_light_tenant_hardly_waits_for_a_flood(make: Make) -> None:
    """While one tenant floods, another's requests take at most 1.5 times the time that each needs alone (p95).

    The engine is told that calls take time in proportion to their lanes, as they do on a CPU; the clock itself says
    little here, for other processes share the tests' cores.
    """
    bench = make(most_lanes=8)
    ticks = watch_lanes(bench)
    took = bench.engine.queue.took

    def told(batch: list[Any], seconds: float) -> None:
        took(batch, 0.01 * sum(p.lanes for p in batch))

    bench.engine.queue.took = told  # type: ignore[method-assign]
    for seed in range(20):
        bench.submit(ask(seed, steps=12), tenant="flood")
    rng = random.Random(2)
    waits: list[float] = []
    for seed in range(7):
        for _ in range(rng.randint(3, 6)):
            bench.engine.tick()
        began = len(ticks)
        _, light = bench.submit(ask(100 + seed, steps=6), tenant="light")
        while not any(e.step == 6 for e in light.of("Stepped")):
            bench.engine.tick()
        waits.append(sum(lanes for tick in ticks[began:] for _, lanes in tick) / (6 * 2))
    waits.sort()
    assert waits[int(0.95 * len(waits))] <= 1.5, waits
    assert all(tenant == "flood" for tenant, _ in ticks[0] + ticks[-7]), "the flood goes on as well"


def test_tenants_share_by_cost_not_by_count(make: Make) -> None:
    """A tenant whose pictures cost four times as much gets as much work done, in a quarter of the pictures."""
    bench = make(most_lanes=4)
    ticks = watch_lanes(bench)
    for seed in range(8):
        bench.submit(ask(seed, steps=50), tenant="small")
        bench.submit(ask(seed, steps=50, width=128, height=128), tenant="large")
    for _ in range(60):
        bench.engine.tick()
    del ticks[:30]  # in which the credit with which each came was used
    small = sum(lanes for tick in ticks for tenant, lanes in tick if tenant == "small")
    large = sum(4 * lanes for tick in ticks for tenant, lanes in tick if tenant == "large")
    assert 0.6 < small / large < 1.6, (small, large)


def test_a_priority_is_a_larger_share(make: Make) -> None:
    """At equal demand a high priority gets about four times the work of a normal one."""
    bench = make(most_lanes=2)
    ticks = watch_lanes(bench)
    for seed in range(6):
        bench.submit(ask(seed, steps=40), tenant="hurried", priority="high")
        bench.submit(ask(seed, steps=40), tenant="calm")
    for _ in range(80):
        bench.engine.tick()
    late = [tenant for tick in ticks[30:] for tenant, _ in tick]
    assert 2.5 < late.count("hurried") / max(1, late.count("calm")) < 6


def test_buckets_take_turns(make: Make) -> None:
    """Pictures of different sizes go on in turn: none waits for another size to end."""
    bench = make()
    _, small = bench.submit(ask(1, steps=8))
    _, large = bench.submit(ask(2, steps=8, width=96))
    for _ in range(8):
        bench.engine.tick()
    assert len(small.of("Stepped")) == len(large.of("Stepped")) == 4


def test_a_flood_leaves_room_to_wait(make: Make) -> None:
    """While one tenant's orders fill its part of the waiting room, others find a place, and so does its urgent work."""
    bench = make(most_lanes=2, max_waiting=3)
    bench.submit(ask(0), tenant="flood")
    bench.engine.tick()
    for seed in (1, 2, 3):
        bench.submit(ask(seed), tenant="flood")
    with pytest.raises(errors.QueueFull):
        bench.submit(ask(4), tenant="flood")
    others = [bench.submit(ask(5), tenant="light"), bench.submit(ask(6), tenant="flood", priority="high")]
    bench.drain()
    assert all(taken.of("Done") for _, taken in others)


def test_the_queue_is_bounded_and_says_when_to_retry(make: Make) -> None:
    """Beyond the bound a request is refused with a time, and positions count down to nothing."""
    bench = make(most_lanes=2, max_waiting=3)
    first = bench.submit(ask(0))[1]
    bench.engine.tick()
    rest = [bench.submit(ask(seed))[1] for seed in (1, 2, 3)]
    with pytest.raises(errors.QueueFull) as caught:
        bench.submit(ask(4))
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    bench.drain()
    assert all(done(taken) for taken in (first, *rest))
    positions = [e.position for e in rest[2].of("Waiting")]
    assert len(positions) > 1
    assert positions == sorted(set(positions), reverse=True)


def test_a_deadline_frees_the_place_without_decoding(make: Make) -> None:
    """An order whose deadline passes ends with that error within one tick, and is not decoded."""
    bench = make()
    order, late = bench.submit(ask(1, steps=100), deadline=time.monotonic() + 3600)
    stays = bench.submit(ask(2, steps=4))[1]
    decodes = bench.engine.decodes
    for _ in range(2):
        bench.engine.tick()
    assert len(late.of("Stepped")) == 2
    order.deadline = time.monotonic()
    bench.engine.tick()
    assert isinstance(late.events[-1].error, errors.DeadlineExceeded)
    assert len(late.of("Stepped")) == 2
    bench.drain()
    assert stays.files
    assert bench.engine.decodes == decodes + 1


def test_a_cancelled_order_is_gone_with_the_next_tick(make: Make) -> None:
    """A cancelled order takes no lane in the next tick, is told nothing more, and is not decoded."""
    bench = make()
    ticks = watch_lanes(bench)
    order, gone = bench.submit(ask(1, steps=50), tenant="gone")
    stays = bench.submit(ask(2, steps=50), tenant="stays")[1]
    for _ in range(3):
        bench.engine.tick()
    told = len(gone.events)
    bench.engine.cancel(order)
    bench.engine.tick()
    assert all(tenant == "stays" for tenant, _ in ticks[-1])
    assert len(gone.events) == told
    bench.drain()
    assert bench.engine.decodes == 1
    assert stays.files


def faulty(bench: Bench, seed: int, fault: Any) -> None:
    """Let every denoiser call that holds the picture with `seed` go through `fault`."""
    predicted = bench.engine.denoiser.together

    def through(batch: list[Any]) -> Any:
        given = predicted(batch)
        return fault(batch, given) if any(p.seed == seed for p in batch) else given

    bench.engine.denoiser.together = through  # type: ignore[method-assign,assignment]


def test_out_of_memory_fails_only_who_does_not_fit(make: Make) -> None:
    """A call that runs out of memory is run again picture by picture; only the one at fault fails, the others' bytes
    are what they are alone."""
    import torch

    bench = make()
    alone = bench.make(ask(1))[0].files

    def fault(batch: list[Any], given: Any) -> Any:
        raise torch.OutOfMemoryError("injected")

    faulty(bench, 2, fault)
    good, bad = bench.submit(ask(1))[1], bench.submit(ask(2))[1]
    bench.drain()
    assert good.files == alone
    assert isinstance(bad.events[-1].error, errors.Unavailable)
    assert bench.make(ask(1))[0].files == alone


def test_out_of_memory_of_a_large_call_fails_nobody(make: Make) -> None:
    """When only the crowd does not fit, everybody's picture is still made, with the same bytes."""
    import torch

    bench = make()
    alone = [bench.make(ask(seed))[0].files for seed in (1, 2, 3)]
    predicted = bench.engine.denoiser.together

    def through(batch: list[Any]) -> Any:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("injected")
        return predicted(batch)

    bench.engine.denoiser.together = through  # type: ignore[method-assign,assignment]
    assert [taken.files for taken in bench.make(ask(1), ask(2), ask(3))] == alone


def test_numbers_that_are_none_fail_alone(make: Make) -> None:
    """A picture whose numbers become NaN fails; the neighbour in the same calls is untouched."""
    bench = make()
    alone = bench.make(ask(1))[0].files

    def fault(batch: list[Any], given: Any) -> Any:
        return [g * math.nan if p.seed == 2 else g for p, g in zip(batch, given, strict=True)]

    faulty(bench, 2, fault)
    good, bad = bench.submit(ask(1))[1], bench.submit(ask(2))[1]
    bench.drain()
    assert good.files == alone
    assert isinstance(bad.events[-1].error, errors.Internal)


def test_an_overflow_while_decoding_is_decoded_again_in_float32(make: Make) -> None:
    """A VAE that overflows in half precision is used once more in float32, and then is as it was."""
    import torch

    bench = make()
    family = bench.engine.family
    whole = family.decode
    used: list[Any] = []

    def overflowing(latents: Any, width: int, height: int) -> Any:
        used.append(family.vae.dtype)
        shown = whole(latents.to(family.vae.dtype), width, height)
        return shown if family.vae.dtype == torch.float32 else shown * math.inf

    family.vae.to(torch.bfloat16)
    family.decode = overflowing  # type: ignore[method-assign]
    try:
        out = bench.make(ask(1))[0]
    finally:
        del family.decode
        restored = family.vae.dtype
        family.vae.to(torch.float32)
    assert out.files
    assert used == [torch.bfloat16, torch.float32]
    assert restored == torch.bfloat16


def test_what_cannot_fit_is_refused_before_it_runs(make: Make) -> None:
    """A picture that is predicted to need more memory than there is is refused by its size, and nothing ran."""
    bench = make(memory_bytes=TIGHT)
    taken = bench.make(ask(1, width=1024, height=1024))[0]
    assert isinstance(taken.events[-1].error, errors.InvalidField)
    assert taken.events[-1].error.param == "width"
    assert bench.engine.ticks == 0
    assert bench.make(ask(1))[0].files


def test_calls_are_kept_within_memory(make: Make) -> None:
    """With little memory calls carry fewer lanes, and everybody's bytes stay the same."""
    wide, tight = make(), make(memory_bytes=TIGHT)
    asks = [ask(seed, width=128, height=128, steps=3) for seed in range(4)]
    ticks = watch_lanes(tight)
    assert [t.files for t in tight.make(*asks)] == [t.files for t in wide.make(*asks)]
    assert max(sum(lanes for _, lanes in tick) for tick in ticks) < 8


def test_what_a_size_takes_is_predicted_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines over one pipeline share what was predicted of it: the second predicts nothing for a known size."""
    from inference.image import memory

    make().make(ask(1, steps=2))

    def predict(call: Callable[[], Any]) -> int:
        raise AssertionError("predicted again")

    monkeypatch.setattr(memory, "peak_bytes", predict)
    assert make().make(ask(1, steps=2))[0].files


def test_fixed_lanes_keep_the_bytes_in_a_crowd(make: Make) -> None:
    """With calls padded to one number of lanes, as on GPUs, a file is the same alone and in a crowd too."""
    bench = make(most_lanes=8, fixed_lanes=4)
    asks = [ask(seed, steps=3, guidance=g) for seed, g in ((1, 5.0), (2, 1.0), (3, 5.0))]
    alone = [taken.files for one in asks for taken in bench.make(one)]
    assert [taken.files for taken in bench.make(*asks)] == alone
    assert bench.make(asks[0])[0].of("Made")[0].receipt.bucket == "64x64x4"


@pytest.mark.parametrize(
    ("fixed", "side", "lanes"),
    [(8, 64, 8), (8, 512, 8), (8, 640, 4), (8, 768, 2), (8, 1024, 2), (16, 1024, 4), (0, 64, 2)],
)
def test_large_pictures_are_padded_less(fixed: int, side: int, lanes: int) -> None:
    """One picture of 1024x1024 alone is not run as four: fixed lanes shrink with the area, to a pair at least."""
    from inference.image.lanes import Lanes

    assert Lanes(lambda latents, timesteps, inputs: latents, fixed=fixed).canonical(side, side) == lanes


def test_random_arrivals_and_leavers_change_no_bytes(make: Make) -> None:
    """Whatever the order of arrival and whoever leaves, every file is the one that its ask gives alone."""
    rng = random.Random(11)
    kinds: list[dict[str, Any]] = [
        {"steps": s, "guidance": g, "scheduler": k}
        for s, g, k in itertools.product((2, 4), (1.0, 6.0), ("ddim", "euler-a"))
    ]
    bench = make(most_lanes=6)
    alone = [bench.make(ask(i, **kind))[0].files for i, kind in enumerate(kinds)]
    for _ in range(2):
        held: list[tuple[int, Any, Taken]] = []
        for i in rng.sample(range(len(kinds)), len(kinds)):
            held.append((i, *bench.submit(ask(i, **kinds[i]), tenant=rng.choice("abc"))))
            for _ in range(rng.randint(0, 2)):
                bench.engine.tick()
        leaving = rng.choice(held)
        bench.engine.cancel(leaving[1])
        bench.drain()
        assert all(taken.files == alone[i] for i, order, taken in held if not order.cancelled)
