"""Low-rank adapters, mixed by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import machine
from inference.image.ask import ImageAsk
from services.common import errors
from tests.inference.bench import TINY, Bench, pixels


def adapter(folder: Path, name: str, seed: int) -> tuple[str, str]:
    """Write a random adapter of the tiny model's UNet and text encoder; give its catalogue entry."""
    machine.bring_up(1)
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    unet = UNet2DConditionModel.from_pretrained(TINY / "unet")
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {}
    for place, layer in unet.named_modules():
        if not place.endswith(("to_q", "to_v", "conv1", "time_emb_proj")):
            continue
        into, out = layer.weight.shape[1], layer.weight.shape[0]
        kernel = tuple(layer.weight.shape[2:])
        state[f"unet.{place}.lora_A.weight"] = torch.randn((4, into, *kernel), generator=generator) * 0.02
        state[f"unet.{place}.lora_B.weight"] = torch.randn((out, 4, *(1 for _ in kernel)), generator=generator) * 0.3
    q = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    state[f"{q}.lora_A.weight"] = torch.randn((4, 128), generator=generator) * 0.1
    state[f"{q}.lora_B.weight"] = torch.randn((128, 4), generator=generator) * 0.1
    (folder / name).mkdir()
    save_file(state, folder / name / "pytorch_lora_weights.safetensors")
    return name, str(folder / name)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("loras")
    return Bench(loras=(adapter(folder, "ink", 1), adapter(folder, "night", 2)))


def ask(*loras: tuple[str, float], seed: int = 1, **fields: Any) -> ImageAsk:
    return ImageAsk(prompt="a red circle", width=64, height=64, steps=4, seed=seed, loras=loras, **fields)


def merged(bench: Bench, *loras: tuple[str, float]) -> Any:
    """Make `ask(...)` with the plain pipeline, the adapters merged into its weights by hand."""
    import torch
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    pipeline = StableDiffusionPipeline.from_pretrained(TINY, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for name, scale in loras:
        (file,) = Path(dict(bench.sources)[name]).glob("*.safetensors")
        state = load_file(file)
        for key, down in state.items():
            if not key.endswith("lora_A.weight"):
                continue
            place = key.removesuffix(".lora_A.weight")
            up = state[f"{place}.lora_B.weight"]
            part, _, path = place.partition(".")
            layer = getattr(pipeline, part).get_submodule(path.removeprefix("text_model."))
            change = (up.flatten(1) @ down.flatten(1)).view(layer.weight.shape)
            layer.weight.data += scale * change
    generator = torch.Generator().manual_seed(1)
    image = pipeline(
        "a red circle", width=64, height=64, num_inference_steps=4, guidance_scale=5.0, generator=generator
    ).images[0]
    return np.asarray(image).astype(int)


def test_rows_with_different_mixes_share_a_call(bench: Bench) -> None:
    """Rows with one, another, both, and no adapter run in one call, each equal to weights merged for it alone."""
    mixes: list[tuple[tuple[str, float], ...]] = [
        (("ink", 1.0),),
        (("night", 0.7),),
        (("ink", 0.5), ("night", -0.5)),
        (),
    ]
    before = bench.engine.ticks
    outs = bench.make(*(ask(*mix) for mix in mixes))
    assert bench.engine.ticks - before == 4
    shown = [pixels(out.files[0]) for out in outs]
    for mix, picture in zip(mixes, shown, strict=True):
        assert np.abs(picture - merged(bench, *mix)).max() <= 1
    assert all(np.abs(one - shown[3]).max() > 20 for one in shown[:3])


@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
def test_an_adapters_bytes_do_not_depend_on_the_crowd(bench: Bench) -> None:
    """With adapters too, a file is byte-identical alone and in a crowd; without any it is the bare model's."""
    asks = [ask(("ink", 1.0)), ask(("night", 1.0), seed=2), ask(seed=3), ask(("ink", 0.3), ("night", 0.4), seed=4)]
    alone = [bench.make(one)[0].files for one in asks]
    for _ in range(2):
        assert [out.files for out in bench.make(*asks)] == alone
    assert Bench().make(asks[2])[0].files == alone[2]


def test_scale_zero_is_the_bare_model(bench: Bench) -> None:
    """An adapter at scale 0 changes nothing, to the byte."""
    assert bench.make(ask(("ink", 0.0)))[0].files == bench.make(ask())[0].files


def test_an_unknown_adapter_is_refused(bench: Bench) -> None:
    """An adapter that the model does not have is named, with those that it has."""
    with pytest.raises(errors.InvalidField, match="ink, night"):
        bench.submit(ask(("watercolour", 1.0)))
