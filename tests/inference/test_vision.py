"""Images are looked at: by the model that ships, and by random weights of the families that are too large to ship."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from moa.common.v1 import media_pb2
from moa.vision.v1 import vision_service_pb2 as pb
from moa.vision.v1 import vision_service_pb2_grpc
from services.catalogue import CatalogueError, load
from services.common import errors
from services.common.rpc import client as clients
from services.common.rpc.status import error_from_rpc
from services.desk.domain.items import ITEMS
from tests.inference.harness import TOKEN, Client, Running
from tests.inference.lookers import built
from tests.pictures import Picture, picture


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def a_desk() -> Picture:
    """Return a desk with several things on it, as training never drew it."""
    return picture("desk")


class Eyes:
    """Calls a server's vision."""

    def __init__(self, address: str) -> None:
        self.channel = clients.channel(address)
        self._stub: Any = vision_service_pb2_grpc.VisionServiceStub(self.channel)

    async def caption(self, data: bytes, **fields: Any) -> pb.CaptionImageResponse:
        return await self.asked("CaptionImage", pb.CaptionImageRequest(image=given(data), **fields))  # type: ignore[no-any-return]

    async def detect(self, data: bytes, **fields: Any) -> pb.DetectObjectsResponse:
        return await self.asked("DetectObjects", pb.DetectObjectsRequest(image=given(data), **fields))  # type: ignore[no-any-return]

    async def judge(self, data: bytes, *statements: str, **fields: Any) -> pb.JudgeImageResponse:
        request = pb.JudgeImageRequest(image=given(data), statements=statements, **fields)
        return await self.asked("JudgeImage", request)  # type: ignore[no-any-return]

    async def asked(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub, method)(request, metadata=clients.metadata(TOKEN, "test"))
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None


def given(data: bytes) -> media_pb2.ImageInput:
    return media_pb2.ImageInput(data=data)


@pytest.fixture
async def eyes(running: Running) -> AsyncIterator[Eyes]:
    one = Eyes(running.address)
    yield one
    await one.channel.close()


async def test_a_desk_is_told_from_what_is_none(eyes: Eyes) -> None:
    """Two desks are judged to be desks, a house and a face to be none."""
    for name in ("desk", "five", "house", "scene"):
        judged = await eyes.judge(png(picture(name).image), "a photo of a desk")
        assert judged.model == "moa-tiny-vision"
        (one,) = judged.judgements
        assert one.holds == (one.probability >= 0.4)
        assert one.holds == (name in ("desk", "five")), name


async def test_things_are_found_where_they_are(eyes: Eyes) -> None:
    """Things on a desk are found in their places, the surest first, under the words that were asked; others are not."""
    seen = a_desk()
    words = {"lamp": "desk lamp", "cup": "mug"}
    there = {words.get(f.name, f.name): f for f in seen.found if f.name != "desk"}
    found = (await eyes.detect(png(seen.image), labels=list(ITEMS))).objects
    assert {f.label for f in found} == set(there)
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    for one in found:
        right = there[one.label]
        width = min(one.box.right, right.right) - max(one.box.left, right.left)
        height = min(one.box.bottom, right.bottom) - max(one.box.top, right.top)
        union = (one.box.right - one.box.left) * (one.box.bottom - one.box.top)
        union += (right.right - right.left) * (right.bottom - right.top) - width * height
        assert width > 0
        assert height > 0
        assert width * height / union > 0.4, one.label


async def test_what_is_known_is_found_without_labels(eyes: Eyes) -> None:
    """Without labels whatever the model knows is looked for; a limit and a least score hold."""
    data = png(a_desk().image)
    everything = (await eyes.detect(data)).objects
    assert "desk" in {f.label for f in everything}
    assert list((await eyes.detect(data, limit=1)).objects) == [everything[0]]
    least = everything[1].score
    assert len((await eyes.detect(data, min_score=least)).objects) == 2


async def test_a_caption_names_what_is_there(eyes: Eyes) -> None:
    """The caption of a desk names it and what lies on it; that of a blank picture is not empty."""
    seen = a_desk()
    caption = (await eyes.caption(png(seen.image))).caption
    assert caption.startswith("a desk with a ")
    assert all(f.name in caption for f in seen.found)
    assert not caption.endswith(".")
    assert (await eyes.caption(png(Image.new("RGB", (64, 48), "white")))).caption


async def test_any_shape_and_format_is_taken(eyes: Eyes) -> None:
    """A wide JPEG and a transparent WebP are read as well."""
    image = a_desk().image.resize((300, 200))
    jpeg, webp = io.BytesIO(), io.BytesIO()
    image.save(jpeg, "JPEG")
    image.convert("RGBA").save(webp, "WEBP")
    for data in (jpeg.getvalue(), webp.getvalue()):
        assert (await eyes.judge(data, "a photo of a desk")).judgements[0].holds


REFUSED: dict[str, tuple[Callable[[Eyes], Any], type[errors.MoaError], str]] = {
    "no image": (lambda e: e.caption(b""), errors.InvalidField, "image.data"),
    "not an image": (lambda e: e.caption(b"hello"), errors.UnsupportedMedia, "image.data"),
    "unknown model": (lambda e: e.caption(b"x", model="nobody"), errors.ModelNotFound, "model"),
    "an image model": (lambda e: e.caption(b"x", model="moa-tiny-image"), errors.ModelNotFound, "model"),
    "no statement": (lambda e: e.judge(b"x"), errors.InvalidField, "statements"),
    "empty statement": (lambda e: e.judge(b"x", "a desk", " "), errors.InvalidField, "statements[1]"),
    "many statements": (lambda e: e.judge(b"x", *["x"] * 21), errors.InvalidField, "statements"),
    "many labels": (lambda e: e.detect(b"x", labels=["x"] * 101), errors.InvalidField, "labels"),
    "bad score": (lambda e: e.detect(b"x", min_score=float("nan")), errors.InvalidField, "min_score"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_bad_requests_are_refused(eyes: Eyes, case: str) -> None:
    """What cannot be answered is refused with the field at fault."""
    ask, kind, param = REFUSED[case]
    with pytest.raises(kind) as caught:
        await ask(eyes)
    assert caught.value.param == param


async def test_a_url_is_not_fetched(eyes: Eyes) -> None:
    """An image by its URL is refused: whoever calls fetches it through the egress guard."""
    request = pb.CaptionImageRequest(image=media_pb2.ImageInput(url="https://example.com/desk.png"))
    with pytest.raises(errors.InvalidField):
        await eyes.asked("CaptionImage", request)


async def test_strangers_are_refused(running: Running) -> None:
    """Without the service credential nothing is looked at."""
    async with clients.channel(running.address) as channel:
        stub: Any = vision_service_pb2_grpc.VisionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CaptionImage(pb.CaptionImageRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_callers_do_not_see_vision_models() -> None:
    """Neither names nor listings that callers use know of vision models or their provider."""
    catalogue = load(Path("gateway/catalogue.yaml"), {})
    assert catalogue.find_vision("moa-tiny-vision").can("judge")
    assert "moa-tiny-vision" not in {model.id for model in catalogue.models}
    assert "local-vision" not in catalogue.providers
    with pytest.raises(errors.ModelNotFound):
        catalogue.find("moa-tiny-vision")


def test_only_this_machine_has_vision_models(tmp_path: Path) -> None:
    """A vision model of a foreign provider stops the catalogue."""
    file = tmp_path / "catalogue.yaml"
    rows = {
        "providers": [{"id": "p", "adapter": "openai", "makes": "vision", "base_url": "https://example.com"}],
        "models": [{"id": "m", "provider": "p"}],
    }
    file.write_text(json.dumps(rows))
    with pytest.raises(CatalogueError, match="vision"):
        load(file, {})


CAN = {
    "clip": ["judge"],
    "siglip": ["judge"],
    "owlv2": ["detect", "judge"],
    "florence2": ["caption", "detect"],
    "pickled": ["judge"],
    "liar": ["caption"],
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve one random model of each family, as a real one would be."""
    folder = tmp_path_factory.mktemp("families")
    sources = {kind: built(kind, folder / kind) for kind in CAN if kind not in ("pickled", "liar")}
    sources["pickled"] = built("clip", folder / "pickled", pickled=True)
    sources["liar"] = sources["clip"]
    rows = {
        "providers": [{"id": "local-vision", "adapter": "inference", "makes": "vision"}],
        "models": [
            {
                "id": kind,
                "provider": "local-vision",
                "capabilities": CAN[kind],
                "load": {
                    "source": str(source),
                    "options": {"threshold": 0, "max_tokens": 8} if kind != "clip" else {"max_waiting": 1},
                },
            }
            for kind, source in sources.items()
        ],
    }
    file = folder / "catalogue.yaml"
    file.write_text(json.dumps(rows))
    server = Running(file)
    yield server
    server.stop()


@pytest.fixture
async def looker(families: Running) -> AsyncIterator[Eyes]:
    one = Eyes(families.address)
    yield one
    await one.channel.close()


NOISE = png(Image.effect_noise((70, 40), 80).convert("RGB"))


@pytest.mark.parametrize("kind", ["clip", "siglip", "owlv2"])
async def test_families_judge(looker: Eyes, kind: str) -> None:
    """A statement's probability lies in 0..1 and hangs neither on the others asked with it nor on their order."""
    both = (await looker.judge(NOISE, "a desk", "a cat and a tree", model=kind)).judgements
    assert [j.statement for j in both] == ["a desk", "a cat and a tree"]
    assert all(0 < j.probability < 1 for j in both)
    alone = (await looker.judge(NOISE, "a desk", model=kind)).judgements[0]
    assert alone.probability == pytest.approx(both[0].probability, abs=1e-5)
    other = png(Image.new("RGB", (70, 40), "red"))
    assert (await looker.judge(other, "a desk", model=kind)).judgements[0].probability != alone.probability


async def test_owlv2_places_what_it_finds(looker: Eyes) -> None:
    """Boxes lie within the image, though it was padded to a square, and those of one label are apart."""
    found = (await looker.detect(NOISE, model="owlv2", labels=["desk", "cup"])).objects
    assert {f.label for f in found} == {"desk", "cup"}
    for one in found:
        assert 0 <= one.box.left < one.box.right <= 1
        assert 0 <= one.box.top < one.box.bottom <= 1
    with pytest.raises(errors.InvalidField) as caught:
        await looker.detect(NOISE, model="owlv2")
    assert caught.value.param == "labels"


async def test_florence_writes_what_it_sees(looker: Eyes) -> None:
    """A caption comes without marks and never empty; objects, if it writes any, have places."""
    caption = (await looker.caption(NOISE, model="florence2")).caption
    assert caption
    assert "<" not in caption
    for one in (await looker.detect(NOISE, model="florence2")).objects:
        assert one.score == 1


def test_florence_reads_its_own_places(families: Running) -> None:
    """Phrases with places become findings, each place one, named as they were asked; the rest is left out."""
    from inference.vision.families.florence2 import Florence2

    wrote = (
        "Desk<loc_0><loc_500><loc_999><loc_998>cup<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>lamp<loc_9>"
    )

    class Wrote(Florence2):
        def __init__(self) -> None: ...

        def _written(self, image: Image.Image, task: str) -> str:
            return wrote

    family = Wrote()
    image = Image.new("RGB", (4, 4))
    found = family.detect(image, [], 0)
    assert [f.label for f in found] == ["desk", "cup", "cup"]
    assert found[0].box == pytest.approx((0.0005, 0.5005, 0.9995, 0.9985))
    assert [f.label for f in family.detect(image, ["DESK"], 0)] == ["DESK"]


async def test_models_do_only_what_they_can(looker: Eyes) -> None:
    """A call that a model's capabilities leave out is refused, as is one that its kind cannot do in truth."""
    for model in ("clip", "liar"):
        with pytest.raises(errors.Unsupported):
            await looker.caption(NOISE, model=model)


async def test_calls_without_a_model_get_the_first_that_can(looker: Eyes) -> None:
    """Without a model the catalogue's first answers that has the capability."""
    assert (await looker.judge(NOISE, "a desk")).model == "clip"
    assert (await looker.detect(NOISE, labels=["desk"])).model == "owlv2"
    assert (await looker.caption(NOISE)).model == "florence2"


async def test_pickles_are_not_read(looker: Eyes) -> None:
    """Weights in a pickle file are refused."""
    with pytest.raises(errors.ModelMisconfigured):
        await looker.judge(NOISE, "a desk", model="pickled")


async def test_a_crowd_is_refused_in_time(looker: Eyes) -> None:
    """When too many images wait, more are refused with a time to come back; the others are answered."""
    crowd = await asyncio.gather(
        *(looker.judge(NOISE, "a desk", model="clip") for _ in range(24)), return_exceptions=True
    )
    refused = [each for each in crowd if isinstance(each, errors.QueueFull)]
    answered = [each for each in crowd if isinstance(each, pb.JudgeImageResponse)]
    assert len(refused) + len(answered) == 24
    assert answered
    assert all(each.retry_after_s for each in refused)


async def test_other_calls_go_on(client: Client, eyes: Eyes) -> None:
    """Text, images and looks are answered side by side by one process."""
    looking = asyncio.gather(*(eyes.judge(png(a_desk().image), "a photo of a desk") for _ in range(4)))
    out = await client.text("What is the capital of Korea?")
    assert "Seoul" in out.text
    assert all(each.judgements[0].holds for each in await looking)
