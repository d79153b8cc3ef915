"""What is one provider's own, and the emulators proven by the official SDKs."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import openai
import pytest
from botocore.config import Config
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from openai import AsyncOpenAI
from PIL import Image

from moa.image.v1.image_pb2 import OPERATION_EDIT, OPERATION_OUTPAINT, OPERATION_VARIATION, Diffusion
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common import errors
from services.providers.image import masks
from tests.emulators import aws
from tests.emulators.bedrock_images import NOVA_CANVAS, BedrockImagesEmulator
from tests.emulators.gemini_images import GeminiImagesEmulator
from tests.emulators.ideogram import KEY, IdeogramEmulator
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.emulators.pictures import ImageScript, Upload, png
from tests.image.harness import ImageClient, given, image_service, images_of, shipped_rows

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PICTURE = png(64, 48, "orange")
IMAGEN = "imagen-4.0-generate-preview-06-06"


async def test_the_openai_sdk_makes_edits_and_streams() -> None:
    """The SDK's generate, edit and partial images parse; a withheld image is its BadRequestError."""
    async with (
        OpenAIImagesEmulator() as upstream,
        AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="sk-good", max_retries=0) as sdk,
    ):
        made = await sdk.images.generate(model="gpt-image-2.5-flare", prompt="sea", size="1024x1024", n=2)
        assert made.data is not None
        assert len(made.data) == 2
        edited = await sdk.images.edit(
            model="gpt-image-2.5-flare",
            prompt="night",
            image=[("a.png", PICTURE, "image/png"), ("b.png", PICTURE, "image/png")],
            mask=("mask.png", masks.clear_painted(png(64, 48, "white"), PICTURE), "image/png"),
        )
        assert edited.data is not None
        stream = await sdk.images.generate(model="gpt-image-2.5-flare", prompt="sea", stream=True, partial_images=2)
        assert [event.type async for event in stream] == [
            "image_generation.partial_image",
            "image_generation.partial_image",
            "image_generation.completed",
        ]
        upstream.scripts.append(ImageScript(filtered=True))
        with pytest.raises(openai.BadRequestError):
            await sdk.images.generate(model="gpt-image-2.5-flare", prompt="sea")
        with pytest.raises(openai.BadRequestError, match="response_format"):
            await sdk.images.generate(model="gpt-image-2.5-flare", prompt="sea", response_format="b64_json")


async def test_the_google_sdk_makes_an_image() -> None:
    """The SDK's generate_content with images in and out parses."""
    async with GeminiImagesEmulator() as upstream:
        upstream.scripts.append(ImageScript(text=("Here it is.",), image=PICTURE))
        client = genai.Client(
            api_key="AIza-good", http_options=types.HttpOptions(base_url=upstream.url, api_version="v1beta")
        )
        contents: Any = [types.Part.from_bytes(data=PICTURE, mime_type="image/png"), "make it night"]
        async with client.aio as sdk:
            got = await sdk.models.generate_content(
                model="gemini-3.1-flash-image",
                contents=contents,
                config=types.GenerateContentConfig(
                    response_modalities=["TEXT", "IMAGE"], image_config=types.ImageConfig(aspect_ratio="16:9")
                ),
            )
    assert got.candidates
    assert got.candidates[0].content
    parts = got.candidates[0].content.parts or []
    assert parts[0].text == "Here it is."
    assert parts[1].inline_data is not None
    assert parts[1].inline_data.data == PICTURE


@pytest.mark.filterwarnings("ignore:The generate_images method is deprecated")
async def test_the_google_sdk_makes_images_by_imagen() -> None:
    """The SDK's generate_images parses: several images, the rewritten prompt, what was filtered and why, refusals."""
    async with GeminiImagesEmulator() as upstream:
        upstream.scripts.append(ImageScript(image=PICTURE, revised="A sea, at night"))
        options = types.HttpOptions(base_url=upstream.url, api_version="v1beta")
        async with genai.Client(vertexai=True, api_key="AIza-good", http_options=options).aio as sdk:

            async def ask(**more: Any) -> types.GenerateImagesResponse:
                config = types.GenerateImagesConfig(include_rai_reason=True, **more)
                got: types.GenerateImagesResponse = await sdk.models.generate_images(
                    model=IMAGEN, prompt="sea", config=config
                )
                return got

            got = await ask(number_of_images=2, aspect_ratio="16:9", output_mime_type="image/jpeg")
            made = got.generated_images or []
            assert [each.image.image_bytes for each in made if each.image] == [PICTURE] * 2
            assert made[0].enhanced_prompt == "A sea, at night"
            upstream.scripts.append(ImageScript(filtered=True))
            (withheld,) = (await ask(number_of_images=1)).generated_images or []
            assert withheld.rai_filtered_reason == "Unable to show generated images."
            for wrong in ({"number_of_images": 5}, {"number_of_images": 1, "aspect_ratio": "17:31"}):
                with pytest.raises(genai_errors.ClientError) as refused:
                    await ask(**wrong)
                assert refused.value.code == 400
    assert len(upstream.refused) == 2


async def test_boto3_makes_an_image() -> None:
    """A signed InvokeModel is answered."""
    async with BedrockImagesEmulator() as upstream:

        def ask() -> Any:
            sdk = boto3.client(
                "bedrock-runtime",
                region_name=aws.REGION,
                endpoint_url=upstream.url,
                aws_access_key_id=aws.ACCESS_KEY,
                aws_secret_access_key=aws.SECRET_KEY,
                config=Config(retries={"total_max_attempts": 1}),
            )
            body = {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "sea"}}
            got = sdk.invoke_model(modelId=NOVA_CANVAS, body=json.dumps(body))
            answer = json.loads(got["body"].read())
            sdk.close()
            return answer

        answer = await asyncio.to_thread(ask)
    assert base64.b64decode(answer["images"][0]) == png()


async def _service(
    provider: str, url: str, environment: dict[str, str], folder: Path, **more: Any
) -> AsyncIterator[ImageClient]:
    async with image_service(folder, *shipped_rows(provider, url, **more), environment) as client:
        yield client


@pytest.fixture
async def nova() -> AsyncIterator[BedrockImagesEmulator]:
    async with BedrockImagesEmulator() as upstream:
        yield upstream
        assert upstream.refused == []


@pytest.fixture
async def bedrock(nova: BedrockImagesEmulator, tmp_path: Path) -> AsyncIterator[ImageClient]:
    environment = {"AWS_ACCESS_KEY_ID": aws.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY}
    async for client in _service("aws-bedrock-image", nova.url, environment, tmp_path, options={"region": aws.REGION}):
        yield client


def _decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


async def test_nova_gets_the_mask_in_its_own_colours(bedrock: ImageClient, nova: BedrockImagesEmulator) -> None:
    """White is painted in the contract; Nova paints black."""
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (0, 0, 32, 48))
    out = io.BytesIO()
    mask.save(out, "PNG")
    request = GenerateImageRequest(model=NOVA_CANVAS, provider="aws-bedrock-image", prompt="a boat")
    request.images.append(given(PICTURE))
    request.mask.CopyFrom(given(out.getvalue()))
    await bedrock.ask(request)
    body = nova.seen[-1].body
    assert body["taskType"] == "INPAINTING"
    sent = _decoded(body["inPaintingParams"]["maskImage"])
    assert (sent.getpixel((0, 0)), sent.getpixel((63, 47))) == ((0, 0, 0), (255, 255, 255))


async def test_nova_paints_beyond_the_borders(bedrock: ImageClient, nova: BedrockImagesEmulator) -> None:
    """The image stands in the middle of a larger canvas, and the mask is white around it."""
    request = GenerateImageRequest(model=NOVA_CANVAS, provider="aws-bedrock-image", prompt="the sea goes on")
    request.operation = OPERATION_OUTPAINT
    request.images.append(given(png(320, 320, "orange")))
    request.width, request.height = 640, 480
    await bedrock.ask(request)
    body = nova.seen[-1].body
    assert body["taskType"] == "OUTPAINTING"
    canvas, mask = _decoded(body["outPaintingParams"]["image"]), _decoded(body["outPaintingParams"]["maskImage"])
    assert canvas.size == mask.size == (640, 480)
    assert (mask.getpixel((0, 0)), mask.getpixel((320, 240))) == ((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize(
    ("request_", "task"),
    [
        (GenerateImageRequest(colors=["#FF9800"]), "COLOR_GUIDED_GENERATION"),
        (GenerateImageRequest(operation=OPERATION_VARIATION, images=[given(PICTURE)]), "IMAGE_VARIATION"),
        (GenerateImageRequest(style="PHOTOREALISM"), "TEXT_IMAGE"),
    ],
)
async def test_novas_tasks(
    bedrock: ImageClient, nova: BedrockImagesEmulator, request_: GenerateImageRequest, task: str
) -> None:
    """Each thing that Nova can do is its own task."""
    request_.MergeFrom(GenerateImageRequest(model=NOVA_CANVAS, provider="aws-bedrock-image", prompt="a boat"))
    await bedrock.ask(request_)
    assert nova.seen[-1].body["taskType"] == task


async def test_gemini_text_beside_the_image(tmp_path: Path) -> None:
    """Text comes beside the image; alone it is what the refusal says, and nothing was answered before."""
    async with GeminiImagesEmulator() as upstream:
        rows = shipped_rows("gemini-image", f"{upstream.url}/v1beta")
        async with image_service(tmp_path, *rows, {"GEMINI_API_KEY": "AIza-good"}) as service:
            request = GenerateImageRequest(model="gemini-3.1-flash-image", provider="gemini-image", prompt="what?")
            request.images.append(given(PICTURE))
            upstream.scripts.append(ImageScript(text=("A desk.",), image=PICTURE))
            events = await service.ask(request)
            assert [e.text.text for e in events if e.HasField("text")] == ["A desk."]
            assert images_of(events) == [PICTURE]
            upstream.scripts.append(ImageScript(text=("Only words.",), image=b""))
            with pytest.raises(errors.ContentPolicy, match=r"^the model made no image and said: Only words\.$"):
                await service.ask(request)


async def test_several_images_in_the_place_of_one(tmp_path: Path) -> None:
    """Each has an index of its own, whichever call ends first, and says which of those asked for it belongs to."""
    async with GeminiImagesEmulator() as upstream:
        rows = shipped_rows("gemini-image", f"{upstream.url}/v1beta")
        async with image_service(tmp_path, *rows, {"GEMINI_API_KEY": "AIza-good"}) as service:
            request = GenerateImageRequest(model="gemini-3.1-flash-image", provider="gemini-image", prompt="a boat")
            request.count = 2
            upstream.scripts += [ImageScript(copies=2), ImageScript(copies=2)]
            events = [event for event in await service.ask(request) if event.HasField("image")]
    places = {event.index: event.candidate if event.HasField("candidate") else event.index for event in events}
    assert len(events) == len(places) == 4
    assert sorted(places) == [0, 1, 2, 3]
    assert sorted(places.values()) == [0, 0, 1, 1]


async def test_openai_previews(tmp_path: Path) -> None:
    """Previews are asked for as partial images, and come as progress."""
    async with OpenAIImagesEmulator() as upstream:
        rows = shipped_rows("openai-image", f"{upstream.url}/v1")
        async with image_service(tmp_path, *rows, {"OPENAI_API_KEY": "sk-good"}) as service:
            request = GenerateImageRequest(model="gpt-image-2.5-flare", provider="openai-image", prompt="sea")
            request.stream = True
            request.preview_every = 5
            script = ImageScript(hold_at=1)
            upstream.scripts.append(script)
            messages = aiter(service.call(request))
            first = await anext(messages)
            assert first.events[0].progress.preview.width == 16
            script.gate.set()
            rest = [event async for message in messages for event in message.events]
    assert [e.WhichOneof("event") for e in rest] == ["progress", "progress", "image", "finished"]
    assert rest[-1].finished.usage.prompt_tokens == 11


async def test_ideogram_remixes_by_strength(tmp_path: Path) -> None:
    """How far the image is left behind becomes the weight of the image."""
    async with IdeogramEmulator() as upstream:
        rows = shipped_rows("ideogram-image", upstream.url)
        async with image_service(tmp_path, *rows, {"IDEOGRAM_API_KEY": KEY}) as service:
            request = GenerateImageRequest(
                model="V3", provider="ideogram-image", prompt="sea", operation=OPERATION_EDIT
            )
            request.images.append(given(PICTURE))
            request.diffusion.CopyFrom(Diffusion(strength=0.25))
            await service.ask(request)
            assert upstream.seen[-1].path == "/v1/ideogram-v3/remix"
            assert upstream.seen[-1].body["image_weight"] == "75"
            image = upstream.seen[-1].body["image"]
            assert isinstance(image, Upload)
            assert image.data == PICTURE


def test_masks_of_every_kind() -> None:
    """Transparent or white is painted; each provider gets that in its own way; a wrong size is refused."""
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    clear.putpixel((0, 0), (0, 0, 0, 0))
    out = io.BytesIO()
    clear.save(out, "PNG")
    white = masks.white_painted(out.getvalue(), png(2, 1))
    assert list(Image.open(io.BytesIO(white)).convert("L").tobytes()) == [255, 0]
    again = masks.clear_painted(white, png(2, 1))
    assert [Image.open(io.BytesIO(again)).getpixel((x, 0)) for x in range(2)] == [(0, 0, 0, 0), (0, 0, 0, 255)]
    with pytest.raises(errors.InvalidField, match="mask"):
        masks.white_painted(white, png(3, 3))
