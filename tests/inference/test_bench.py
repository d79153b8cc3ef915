"""The measurements run, each on its own path, however small the model: what they print on a large machine is real."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference import machine
from tests.inference.gguf_file import written
from tests.inference.pipes import built

SIDE = 64

pytestmark = pytest.mark.timeout(600)  # they run for as long as they run: what they print is not judged here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("sd", tmp_path_factory.mktemp("bench") / "sd")


def test_arrivals_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both rivals answer every arrival, at each rate."""
    from inference.bench import load

    load.measure(folder, SIDE, 8, factors=(1.5, 3.0), steps=(2, 3))
    told = capsys.readouterr().out
    assert [line[:4] for line in told.splitlines()[1:]] == ["1.5x", "3.0x"]


def test_text_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Engine, llama.cpp's server and `generate` on the written-out weights answer the same prompts; all are counted."""
    from inference.bench import text

    context, text.CONTEXT = text.CONTEXT, 512
    facts, text.FACTS = text.FACTS, 8
    try:
        rates = text.measure(written(tmp_path / "model.gguf"), threads=1, rounds=1, tokens=4)
    finally:
        text.CONTEXT, text.FACTS = context, facts
    assert len(rates) == 4
    assert all(rate.clock > 0 and rate.cpu > 0 for rate in rates.values())
    told = capsys.readouterr().out
    assert "over llama.cpp's server" in told
    assert "second turn" in told


def test_overheads_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Engine and previews are compared with what they add to, in CPU time; how much it is, is the machine's affair."""
    from inference.bench import alone

    over = alone.measure(folder, SIDE, 0.0, steps=6)
    assert set(over) == {"engine", "previews"}
    assert all(-1 < one < 20 for one in over.values())
    assert "of CPU (goal 2%)" in capsys.readouterr().out


def test_a_light_tenants_wait_is_measured(folder: Path) -> None:
    """The ratio of a light tenant's p95 amid a flood to that alone is a positive number."""
    from inference.bench import tenants

    assert tenants.measure(folder, SIDE, 0.0, steps=3) > 0


def test_full_size_takes_the_same_path_when_it_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    """SDXL's form at a hundredth of its width, on the CPU: every figure is there and more than nothing, and the counted
    operations grow with the picture."""
    machine.bring_up(1)
    import torch

    from inference.bench import full
    from inference.bench.sdxl import Encoder, Shape

    shape = Shape(
        channels=(16, 32, 32),
        heads=(2, 2, 2),
        transformers=(1, 1, 2),
        groups=8,
        vae=(8, 8, 16, 16),
        time=8,
        first=Encoder(hidden=16, layers=1, heads=2),
        second=Encoder(hidden=32, layers=1, heads=2),
    )
    plan = full.Plan(
        sizes=(64, 128), images=4, steps=4, shape=shape, device="cpu", dtype=torch.float32, peak_tflops=0.05
    )
    figures = full.measure(plan)
    assert [one.side for one in figures] == [64, 128]
    for one in figures:
        assert min(one.serial_s, one.serial_alone_s, one.alone_s, one.mixed_s, one.alone_tflop) > 0
    assert 1.5 < figures[1].alone_tflop / figures[0].alone_tflop < 6
    assert "of the bf16 peak" in capsys.readouterr().out


def test_full_size_is_skipped_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a CUDA device nothing is measured, and it says why."""
    machine.bring_up(1)
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    from inference.bench import full

    assert full.measure(full.Plan()) == []
    assert "no CUDA device" in capsys.readouterr().out


def test_the_full_form_is_sdxls() -> None:
    """The full form has SDXL's 2.57e9 weights, and one lane of a 1024x1024 step its 6.0 TFLOP or so; on tensors without
    data, so that it takes no memory."""
    machine.bring_up(1)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from inference.bench.sdxl import FULL, unet

    with torch.device("meta"):
        network = unet(FULL).to(torch.bfloat16).eval()
        added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        given = torch.empty(1, 4, 128, 128), torch.empty(1), torch.empty(1, 77, 2048)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            latents, time, text = (tensor.to(torch.bfloat16) for tensor in given)
            added = {name: value.to(torch.bfloat16) for name, value in added.items()}
            network(latents, time, encoder_hidden_states=text, added_cond_kwargs=added)
    assert round(sum(p.numel() for p in network.parameters()) / 1e9, 2) == 2.57
    assert 5.9 < counter.get_total_flops() / 1e12 < 6.9
