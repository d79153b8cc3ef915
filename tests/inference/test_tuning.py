"""The catalogue's options of how a pipeline runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inference import machine
from inference.image.ask import ImageAsk
from inference.image.events import Made
from inference.job import Failed
from services.common.errors import ModelMisconfigured
from tests.inference.bench import TINY, model_at, pixels
from tests.inference.pipes import built

ASK = ImageAsk(prompt="a red circle", width=64, height=64, steps=4, seed=5, guidance=3.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tuned")
    return {"tiny": TINY} | {name: built(name, root / name) for name in ("sd", "flux")}


@pytest.fixture(scope="module")
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def engine(folder: Path, workers: ThreadPoolExecutor, most_lanes: int = 4, dtype: str = "auto", **options: Any) -> Any:
    """Load a model with options into an engine of its own."""
    machine.bring_up(1)
    from inference.image.engine import ImageEngine
    from inference.image.load import load

    model = model_at(folder, max_sequence_length=32, **options)
    assert model.load is not None
    model = msgspec.structs.replace(model, load=msgspec.structs.replace(model.load, dtype=dtype))
    loaded = load(model, lambda stage, fraction: None)
    return ImageEngine(
        "tuned",
        loaded.family,
        adapters=loaded.adapters,
        revision=loaded.revision,
        size_bytes=loaded.size_bytes,
        workers=workers,
        most_lanes=most_lanes,
    )


def made(one: Any, workers: ThreadPoolExecutor, *asks: ImageAsk) -> list[bytes]:
    """Make asks together, ticked by hand."""
    events: list[list[Any]] = []
    for ask in asks:
        events.append([])
        one.submit(one.prepare(ask), events[-1].append)
    while one.busy:
        one.tick()
    workers.submit(int).result()
    assert not [e for of in events for e in of if isinstance(e, Failed)]
    return [e.data for of in events for e in of if isinstance(e, Made)]


def apart(one: bytes, other: bytes) -> int:
    """Return the greatest difference of two images, in levels."""
    return int(np.abs(pixels(one) - pixels(other)).max())


@pytest.mark.parametrize(("family", "name"), [("sd", "eager"), ("sd", "sdpa"), ("flux", "eager"), ("flux", "native")])
def test_attention_is_chosen(folders: dict[str, Path], workers: ThreadPoolExecutor, family: str, name: str) -> None:
    """Another attention kernel makes the same image within one level, and models loaded later keep their own."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = _AttentionBackendRegistry.get_active_backend()[0]
    tuned = engine(folders[family], workers, attention=name)
    assert _AttentionBackendRegistry.get_active_backend()[0] == before
    kinds = {type(m.processor).__name__ for m in tuned.family.denoiser.modules() if hasattr(m, "processor")}
    if family == "sd":
        assert kinds == {"AttnProcessor" if name == "eager" else "AttnProcessor2_0"}
    plain = engine(folders[family], workers)
    assert apart(made(tuned, workers, ASK)[0], made(plain, workers, ASK)[0]) <= 1


def test_the_number_format_is_chosen(folders: dict[str, Path], workers: ThreadPoolExecutor) -> None:
    """Loaded as bfloat16, all parts are, the image stays close, and its bytes do not depend on the crowd."""
    import torch

    exact, short = engine(folders["tiny"], workers), engine(folders["tiny"], workers, dtype="bfloat16")
    parts = short.family.pipeline.components.values()
    kinds = {p.dtype for part in parts if isinstance(part, torch.nn.Module) for p in part.parameters()}
    assert kinds == {torch.bfloat16}
    alone = made(short, workers, ASK)[0]
    other = ImageAsk(prompt="a car", width=64, height=64, steps=3, seed=1, guidance=1.0)
    assert made(short, workers, ASK, other)[0] == alone
    assert np.abs(pixels(alone) - pixels(made(exact, workers, ASK)[0])).mean() < 12


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_weights_in_eight_bits_are_smaller_and_draw_the_same(
    folders: dict[str, Path], workers: ThreadPoolExecutor, kind: str
) -> None:
    """Quantised, the denoiser takes under a third of its memory; the image stays close, its bytes its own."""
    plain, tuned = engine(folders["tiny"], workers), engine(folders["tiny"], workers, quantize=kind)
    sizes = [sum(p.numel() * p.element_size() for p in e.family.denoiser.parameters()) for e in (plain, tuned)]
    assert sizes[1] < 0.3 * sizes[0]
    asks = [ImageAsk(prompt=p, width=64, height=64, steps=6, seed=3) for p in ("a sunset", "a red circle")]
    exact, close = made(plain, workers, *asks), made(tuned, workers, *asks)
    for one, other in zip(exact, close, strict=True):
        assert np.abs(pixels(one) - pixels(other)).mean() < {"int8": 4, "float8": 12}[kind]
        assert one != other
    assert made(tuned, workers, asks[0])[0] == close[0]


def test_encoders_off_the_device_change_nothing(folders: dict[str, Path], workers: ThreadPoolExecutor) -> None:
    """A text encoder comes to the device for each of its calls and leaves after it; the bytes are the same."""
    tuned = engine(folders["flux"], workers, offload=["text_encoder_2"])
    encoder, told = tuned.family.pipeline.text_encoder_2, []
    encoder.to = lambda device: told.append(("to", str(device)))
    encoder.encoder.register_forward_hook(lambda *_: told.append(("ran", "")))
    images = made(tuned, workers, ASK)
    assert told == [("to", "cpu"), ("ran", ""), ("to", "cpu")]
    assert images == made(engine(folders["flux"], workers), workers, ASK)


def test_every_size_is_proven_by_warming(folders: dict[str, Path], workers: ThreadPoolExecutor) -> None:
    """After warming, the numbers of lanes that keep their bits are known before the first request."""
    one = engine(folders["sd"], workers)
    one.denoiser.warm(64, 64)
    assert set(one.lanes.proven()) == {3, 4}


REFUSED: dict[str, dict[str, Any]] = {
    "attention of a UNet": {"attention": "flash"},
    "quantisation": {"quantize": "int2"},
    "offloading the denoiser": {"offload": ["unet"]},
    "a compiler": {"compile": {"backend": "nobody"}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_refused(folders: dict[str, Path], workers: ThreadPoolExecutor, case: str) -> None:
    """An option that the model or machine does not have stops the model's loading, in words."""
    with pytest.raises(ModelMisconfigured):
        engine(folders["tiny"], workers, **REFUSED[case]).denoiser.warm(64, 64)
