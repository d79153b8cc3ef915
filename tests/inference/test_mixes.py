"""A law: an order's bytes do not depend on who else is served, when they come, or whether they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.image.ask import ImageAsk
from tests.inference.bench import Bench
from tests.inference.pipes import built
from tests.inference.test_image import drawn, half_mask
from tests.laws import tries

SOURCE: dict[str, Any] = {"image": drawn(), "strength": 0.7}
PAINTED: dict[str, Any] = {"image": drawn(), "mask": half_mask(), "strength": 1.0}
INK, NIGHT = (("ink", 1.0),), (("ink", 0.4), ("night", -0.7))
KINDS: tuple[dict[str, Any], ...] = (
    {"scheduler": "euler", "steps": 4},
    {"scheduler": "euler-a", "steps": 5, "guidance": 1.0},
    {"scheduler": "dpm++", "steps": 4, "count": 2},
    {"scheduler": "unipc", "steps": 5, "loras": INK},
    {"scheduler": "ddim", "steps": 3, "negative": "blue"},
    {"scheduler": "lcm", "steps": 3, "guidance": 1.0, "loras": NIGHT},
    {"scheduler": "euler-a", "steps": 5, "loras": INK} | SOURCE,
    {"scheduler": "unipc", "steps": 6, "guidance": 1.0} | SOURCE,
    {"scheduler": "dpm++", "steps": 5, "count": 2, "loras": NIGHT} | SOURCE,
    {"scheduler": "ddim", "steps": 4, "guidance": 1.0, "loras": INK} | PAINTED,
    {"scheduler": "euler", "steps": 4, "count": 2} | PAINTED,
    {"scheduler": "lcm", "steps": 4} | PAINTED | {"strength": 0.6},
    {"scheduler": "euler", "steps": 4, "width": 96},
    {"scheduler": "unipc", "steps": 4, "width": 96, "loras": NIGHT} | SOURCE,
    {"scheduler": "", "steps": 3, "width": 96, "guidance": 1.0, "count": 2},
)


def asked(kind: int) -> ImageAsk:
    fields: dict[str, Any] = {
        "prompt": "a red circle",
        "width": 64,
        "height": 64,
        "guidance": 5.0,
        "seed": 10 * kind,
    } | KINDS[kind]
    return ImageAsk(**fields)


def adapter(model: Path, folder: Path, name: str, seed: int) -> tuple[str, str]:
    """Write a random adapter of a model's UNet; give its catalogue entry."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {}
    for place, layer in UNet2DConditionModel.from_pretrained(model / "unet").named_modules():
        if place.endswith(("to_q", "to_v", "conv1", "time_emb_proj")):
            out, into, *kernel = layer.weight.shape
            state[f"unet.{place}.lora_A.weight"] = torch.randn((4, into, *kernel), generator=generator) * 0.05
            up = torch.randn((out, 4, *(1 for _ in kernel)), generator=generator) * 0.3
            state[f"unet.{place}.lora_B.weight"] = up
    (folder / name).mkdir()
    save_file(state, folder / name / "pytorch_lora_weights.safetensors")
    return name, str(folder / name)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, list[dict[int, bytes]]]:
    """Return an engine, and the files of each kind made alone by another."""
    folder = tmp_path_factory.mktemp("mixes")
    model = built("sd", folder / "sd")
    loras = (adapter(model, folder, "ink", 1), adapter(model, folder, "night", 2))
    lonely = Bench(model, loras=loras)
    alone = [lonely.make(asked(kind))[0].files for kind in range(len(KINDS))]
    assert lonely.make(asked(3))[0].files != lonely.make(ImageAsk(**(vars_of(asked(3)) | {"loras": ()})))[0].files
    return Bench(model, loras=loras, most_lanes=8), alone


def vars_of(ask: ImageAsk) -> dict[str, Any]:
    return {name: getattr(ask, name) for name in ask.__slots__}


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, len(KINDS) - 1),
        st.integers(0, 3),  # ticks until the next arrives
        st.sampled_from("abc"),  # the tenant
        st.sampled_from(("low", "normal", "high")),
        st.one_of(st.none(), st.none(), st.integers(0, 6)),  # ticks after which it is cancelled, if it is
    ),
    min_size=2,
    max_size=8,
)


@pytest.mark.timeout(300)
@settings(max_examples=tries(6), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(arrivals=ARRIVALS)
def test_any_crowd_gives_the_bytes_that_each_has_alone(
    crowd: tuple[Bench, list[dict[int, bytes]]], arrivals: list[tuple[int, int, str, str, int | None]]
) -> None:
    """Six schedulers, text and image to image, inpainting, several images, guidance 1, LoRAs by row, two sizes, three
    tenants at three priorities, arriving and leaving at random: whoever stays has the file that it has alone, to the
    byte, and whoever left is told nothing more."""
    bench, alone = crowd
    held: list[tuple[int, Any, Any]] = []
    leaving: list[tuple[int, Any, Any]] = []
    told: dict[Any, int] = {}
    """Events that an order had when it was cancelled."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks, leaving
        bench.engine.tick()
        ticks += 1
        for at, order, taken in [one for one in leaving if one[0] <= ticks]:
            bench.engine.cancel(order)
            leaving.remove((at, order, taken))
            told[order] = len(taken.events)

    for kind, gap, tenant, priority, leaves in arrivals:
        order, taken = bench.submit(asked(kind), tenant=tenant, priority=priority)
        held.append((kind, order, taken))
        if leaves is not None:
            leaving.append((ticks + leaves + 1, order, taken))
        for _ in range(gap):
            tick()
    while bench.engine.busy:
        tick()
    bench.workers.submit(int).result()
    for kind, order, taken in held:
        assert not taken.of("Failed")
        if order.cancelled:
            assert len(taken.events) == told[order]
            assert {index: alone[kind][index] for index in taken.files} == taken.files
        else:
            assert taken.files == alone[kind], KINDS[kind]
