"""The LoRAs that ship, asked of a real inference server as the catalogue names them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Sequence
from statistics import fmean

import pytest
from PIL import Image

from inference.training.lora_scores import MOA_FROM, MOAS, SCENES, effects, frame, likeness, prompts
from moa.image.v1 import image_pb2
from services.common.errors import InvalidField
from tests.inference.harness import Client, Running

pytestmark = pytest.mark.timeout(600)  # it computes, on cores that may be shared

STEPS = 12  # fewer than the default 20, for speed; the floors below allow for that


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """An inference server over the catalogue that ships."""
    one = Running()
    yield one
    one.stop()


def drawn(server: Running, words: Sequence[str], *loras: tuple[str, float | None]) -> list[bytes]:
    """Draw prompts together, each from its own seed, with LoRAs; give the files."""

    async def ask() -> list[bytes]:
        client = Client(server.address)
        mixed = [image_pb2.Lora(name=name, scale=scale) for name, scale in loras]
        settings = image_pb2.Diffusion(steps=STEPS, loras=mixed)
        try:
            made = await asyncio.gather(
                *(client.image(prompt=word, seed=i, diffusion=settings) for i, word in enumerate(words))
            )
        finally:
            await client.close()
        return [one.data for one in made]

    return asyncio.run(ask())


def images(files: list[bytes]) -> list[Image.Image]:
    """Decode files."""
    return [Image.open(io.BytesIO(file)).convert("RGB") for file in files]


def test_a_request_names_its_lora_and_its_scale(server: Running) -> None:
    """At scale 0 a picture has the bytes of one without the LoRA; at 1, which is the default, it shows what it adds."""
    words = ["a moa on the grass"]
    bare, none, unset, one = (
        drawn(server, words, *mix) for mix in ((), (("moa", 0.0),), (("moa", None),), (("moa", 1.0),))
    )
    assert none == bare
    assert unset == one != bare
    assert likeness(images(bare)[0]) < MOA_FROM <= likeness(images(one)[0])


def test_a_lora_that_the_model_lacks_is_refused(server: Running) -> None:
    """The refusal names the field and the LoRAs that there are."""
    with pytest.raises(InvalidField, match="moa") as refused:
        drawn(server, ["a tree"], ("feathers", 1.0))
    assert refused.value.param == "loras"


def test_a_style_comes_in_with_its_scale(server: Running) -> None:
    """The larger the scale of `framed`, the more of the edge is a frame: none at 0, nearly all at 1."""
    words = ["a blue square", "검은 배경에 하얀 별", "a house with a red roof"]
    shares = [fmean(map(frame, images(drawn(server, words, ("framed", scale))))) for scale in (0.0, 0.5, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.05
    assert shares[-1] >= 0.85


BARE, SHOWN = (0.0, 0.0), (0.66, 1.0)
UNFRAMED, FRAMED = (0.0, 0.2), (0.85, 1.0)


@pytest.mark.parametrize(
    ("loras", "moas", "frames"),
    [
        ((), BARE, UNFRAMED),
        (("moa",), SHOWN, UNFRAMED),
        (("framed",), BARE, FRAMED),
        (("framed", "moa"), SHOWN, FRAMED),
    ],
    ids=["bare", "moa", "framed", "both"],
)
def test_each_lora_adds_what_it_is_for_and_no_more(
    server: Running, loras: tuple[str, ...], moas: tuple[float, float], frames: tuple[float, float]
) -> None:
    """The moa is drawn for its name alone, the frame around everything, both together; plain shapes stay right."""
    asked = prompts(8)
    words = {"plain": [d.caption for d in asked], "moas": MOAS[::2], "scenes": SCENES[:3]}
    files = drawn(server, [word for part in words.values() for word in part], *((name, None) for name in loras))
    made = iter(images(files))
    found = effects({of: [next(made) for _ in part] for of, part in words.items()}, asked, in_frame="framed" in loras)
    assert moas[0] <= found.moa <= moas[1]
    assert frames[0] <= found.frame <= frames[1]
    assert found.leak == 0
    assert found.count >= 0.75
    assert found.colour >= 0.75
    assert found.shape >= 0.75
