"""Every family, against the plain diffusers pipelines on the same weights."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.image import codec
from inference.image.ask import ImageAsk
from services.common.errors import InvalidField
from tests.inference.bench import TINY, Bench, pixels
from tests.inference.pipes import FAMILIES, built
from tests.inference.test_image import drawn, half_mask

SAMPLERS = ("", "euler", "euler-a", "dpm++", "unipc", "ddim", "lcm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {name: built(name, root / name) for name in FAMILIES} | {"tiny": TINY}


def plain(folder: Path, ask: ImageAsk) -> Any:
    """Make an ask with the plain pipeline of the installed diffusers."""
    import diffusers
    import torch

    from inference.image import schedulers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    if ask.scheduler:
        pipeline.scheduler = schedulers.BY_NAME[ask.scheduler].from_config(pipeline.scheduler.config)
    given: dict[str, Any] = {
        "prompt": ask.prompt,
        "num_inference_steps": ask.steps,
        "guidance_scale": ask.guidance,
        "generator": torch.Generator().manual_seed(ask.seed),
        "output_type": "np",
    }
    name = type(pipeline).__name__
    if name in ("StableDiffusion3Pipeline", "FluxPipeline"):
        given["max_sequence_length"] = 32
    if ask.negative:
        given["negative_prompt"] = ask.negative
    if ask.image is None or ask.mask is not None or name in ("StableDiffusion3Pipeline", "FluxPipeline"):
        given |= {"width": ask.width, "height": ask.height}
    if ask.image is not None:
        kind = "Inpaint" if ask.mask is not None else "Image2Image"
        convert = {"Inpaint": diffusers.AutoPipelineForInpainting, "Image2Image": diffusers.AutoPipelineForImage2Image}
        scheduler = pipeline.scheduler
        pipeline = convert[kind].from_pipe(pipeline)
        pipeline.scheduler = scheduler
        given |= {"image": codec.source(ask.image, ask.width, ask.height), "strength": ask.strength}
    if ask.mask is not None:
        given["mask_image"] = codec.mask(ask.mask, ask.width, ask.height)
    pipeline.set_progress_bar_config(disable=True)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        if type(pipeline).__name__ != "StableDiffusion3InpaintPipeline":
            return (pipeline(**given).images[0] * 255).round().astype(int)
        # diffusers 0.42 forgets the VAE's shift when this one pipeline decodes.
        latents = pipeline(**(given | {"output_type": "latent"})).images
        shifted = latents / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
        decoded = pipeline.image_processor.postprocess(pipeline.vae.decode(shifted).sample, output_type="np")
        return (decoded[0] * 255).round().astype(int)


def asks(name: str, rng: random.Random) -> list[ImageAsk]:
    """Return a mix of asks that the family takes, different in everything."""
    flow = name in ("sd3", "flux")
    made = []
    for i, sampler in enumerate(("",) * 5 if flow else SAMPLERS):
        given: dict[str, Any] = {
            "prompt": rng.choice(["a red circle", "노을", "a desk with a lamp"]),
            "negative": "" if name == "flux" else rng.choice(["", "blue"]),
            "width": 64,
            "height": rng.choice([64, 64, 96]),
            "steps": rng.randint(3, 6),
            "guidance": rng.choice([1.0, 3.5, 7.5]),
            "scheduler": sampler,
            "seed": rng.randrange(1000),
        }
        if i % 3 == 1:
            given |= {"image": drawn(), "strength": rng.choice([0.5, 0.8])}
        if i % 3 == 2:
            given |= {"image": drawn(), "mask": half_mask(), "strength": rng.choice([0.7, 1.0])}
        made.append(ImageAsk(**given))
    return made


@pytest.mark.parametrize("name", ["tiny", *FAMILIES])
@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
def test_a_mix_equals_the_plain_pipeline(folders: dict[str, Path], name: str) -> None:
    """A crowd of unlike asks, joining at different ticks, equals the plain pipeline run for each alone within 1/255."""
    rng = random.Random(len(name))
    bench = Bench(folders[name])
    mix = asks(name, rng)
    taken = []
    for ask in mix:
        taken.append(bench.submit(ask)[1])
        for _ in range(rng.randint(0, 2)):
            bench.engine.tick()
    bench.drain()
    for ask, out in zip(mix, taken, strict=True):
        assert not out.of("Failed"), out.events[-1].error
        difference = np.abs(pixels(out.files[0]) - plain(folders[name], ask)).max()
        assert difference <= 1, (ask.scheduler, ask.image is not None, ask.mask is not None, difference)
    assert bench.engine.ticks < sum(len(out.of("Stepped")) for out in taken), "steps share calls"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_same_bytes_in_a_crowd(folders: dict[str, Path], name: str) -> None:
    """In every family a file is byte-identical alone and in a crowd."""
    rng = random.Random(7)
    bench = Bench(folders[name])
    mix = asks(name, rng)
    alone = [bench.make(ask)[0].files for ask in mix]
    order = rng.sample(range(len(mix)), len(mix))
    crowd = bench.make(*(mix[i] for i in order))
    assert [crowd[at].files for at in np.argsort(order)] == alone


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_has_the_size_that_was_asked_for(folders: dict[str, Path], name: str) -> None:
    """Sizes that are no multiples of what a family is made of are refused; all others are kept to the pixel."""
    bench = Bench(folders[name])
    step = bench.engine.family.side_step
    ask = ImageAsk(prompt="노을", width=64 + step, height=64 + 3 * step, steps=2, guidance=2.0)
    assert pixels(bench.make(ask)[0].files[0]).shape == (64 + 3 * step, 64 + step, 3)
    off = 64 + step // 2
    for side, bad in (("width", replace(ask, width=off)), ("height", replace(ask, height=off))):
        with pytest.raises(InvalidField, match=f"multiple of {step}") as refused:
            bench.submit(bad)
        assert refused.value.param == side
