"""Pictures in a reservation: by the rule of the dearest model that may answer, at their own size."""

from __future__ import annotations

import pytest

from moa.common.v1 import media_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.catalogue._pictures import UNKNOWN, Flat, Patches, Tiles
from services.router.domain import bounds
from services.router.domain.caller import Caller
from services.router.domain.prompt import Prompt
from services.router.operations.text import TextCall
from tests.emulators.pictures import png
from tests.router.world import World

TILES = Model(id="t", provider="p", image_tokens=Tiles(base=2833, each=5667))
PATCHES = Model(id="s", provider="p", image_tokens=Patches(side=32, most_patches=1536, each=1.62))
SILENT = Model(id="u", provider="p")


def asked(*pictures: bytes) -> text_service_pb2.GenerateTextRequest:
    request = text_service_pb2.GenerateTextRequest(model="m")
    parts = [text_pb2.Part(image=media_pb2.ImageInput(data=data)) for data in pictures]
    request.messages.add(role=text_pb2.ROLE_USER, parts=[*parts, text_pb2.Part(text="what is it?")])
    return request


def prompt_bound(request: text_service_pb2.GenerateTextRequest, models: list[Model]) -> int:
    return bounds.prompt_bound(Prompt.of(request), request, models)


def test_a_prompt_that_was_looked_through_knows_its_pictures() -> None:
    """Their sizes are read where the prompt is looked through: to read them again would copy each picture."""
    request = asked(png(64, 64), png(1024, 512), b"no picture")
    prompt = Prompt.of(request, whole=True)
    assert prompt.sizes == ((64, 64), (1024, 512), None)
    bound = prompt_bound(request, [TILES, PATCHES])
    for part in request.messages[0].parts[:2]:
        part.image.data = b"looked at again"
    assert bounds.prompt_bound(prompt, request, [TILES, PATCHES]) == bound


def test_a_picture_that_was_fetched_since_is_read() -> None:
    """A link has no size when its prompt is looked through."""
    request = asked(b"")
    prompt = Prompt.of(request, whole=True)
    request.messages[0].parts[0].image.data = png(64, 64)
    assert bounds.prompt_bound(prompt, request, [TILES]) == prompt_bound(request, [TILES])


def pictures_bound(model: Model, *pictures: bytes) -> int:
    """Return what the pictures add to the bound of a prompt."""
    return prompt_bound(asked(*pictures), [model]) - prompt_bound(asked(), [model])


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        (TILES, (64, 64), 8_500),
        (TILES, (1024, 1024), 25_501),
        (TILES, (2048, 768), 48_169),
        (PATCHES, (64, 64), 7),
        (PATCHES, (2048, 2048), 2_489),
        (SILENT, (64, 64), UNKNOWN.of(64, 64)),
    ],
)
def test_a_picture_counts_at_its_size(model: Model, size: tuple[int, int], tokens: int) -> None:
    """It was 3,000 for any: a sixteenth of what gpt-4o-mini may cost."""
    assert tokens <= pictures_bound(model, png(*size)) <= tokens + 8


@pytest.mark.parametrize("model", [TILES, PATCHES, SILENT], ids=lambda model: model.id)
@pytest.mark.parametrize("data", [b"", b"no picture", png(32, 32)[:20]], ids=["empty", "other", "cut"])
def test_a_picture_whose_size_cannot_be_read_counts_as_the_largest(model: Model, data: bytes) -> None:
    """Whoever answers will refuse it, or see more in it than the header says."""
    assert pictures_bound(model, data) >= model.picture_rule.most()


def test_pictures_add_up_and_the_dearest_model_counts() -> None:
    """Where several may answer, the bound holds for each of them."""
    pair = png(64, 64), png(1024, 1024)
    assert pictures_bound(TILES, *pair) >= 8_500 + 25_501
    request = asked(*pair)
    every = prompt_bound(request, [PATCHES, TILES])
    assert every == max(prompt_bound(request, [PATCHES]), prompt_bound(request, [TILES]))


async def test_a_reservation_is_enough_for_a_dearer_fallback() -> None:
    """One reservation pays for all attempts: `b` counts pictures dearer than `a`, which was asked."""
    seeing = {"capabilities": frozenset({"vision"})}
    changes = {
        "a": {"image_tokens": Flat(each=100), **seeing},
        "b": {"image_tokens": Flat(each=5_000), **seeing},
        "c": {"image_tokens": Flat(each=200), **seeing},
    }
    world = World(a=changes["a"], b=changes["b"], c=changes["c"])
    request = asked(png())
    request.model = "a"
    answer = await world.operations.begin(TextCall(request), Caller(key="k", request_id="rid"))
    async with answer:
        assert answer.reservation.tokens >= 5_000
        while await answer.next():
            pass
