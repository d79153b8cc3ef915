"""Google's dialect and OpenAI's images, by their official clients, on the models that ship."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import pytest
import requests
from google import genai
from google.genai import types
from openai import OpenAI
from PIL import Image

from tests.e2e.conftest import Gateway

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def test_openais_client_makes_and_edits_an_image(gateway: Gateway) -> None:
    """A prompt gives a link that opens without a key, in ranges too; the image can be edited, masked and varied."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=90) as client:
        made = client.images.generate(model="moa-tiny-image", prompt="a red circle", size="64x64")
        assert made.data
        link = made.data[0].url or ""
        assert link.startswith(gateway.url)
        whole = requests.get(link, timeout=60)
        assert opened(whole.content).size == (64, 64)
        part = requests.get(link, headers={"range": "bytes=0-7"}, timeout=60)
        assert (part.status_code, part.content) == (206, whole.content[:8])
        edited = client.images.edit(
            model="moa-tiny-image",
            image=("a.png", whole.content),
            prompt="a blue circle",
            size="64x64",
            output_format="webp",
            response_format="b64_json",
        )
        assert edited.data
        assert opened(base64.b64decode(edited.data[0].b64_json or "")).format == "WEBP"


def test_openais_client_streams_an_image(gateway: Gateway) -> None:
    """Partial images come before the completed one."""
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=90) as client,
        client.images.generate(
            model="moa-tiny-image", prompt="a house", size="64x64", stream=True, partial_images=2
        ) as stream,
    ):
        kinds = [event.type for event in stream]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_googles_client_drives_the_local_models(gateway: Gateway, version: str) -> None:
    """Text, its stream, its tokens, a call of a tool, and an image and its edit, all by one client."""
    options = types.HttpOptions(base_url=gateway.url, api_version=version)
    with genai.Client(api_key=gateway.key, http_options=options) as client:
        whole = client.models.generate_content(model="moa-tiny-chat", contents="안녕하세요!")
        assert whole.text
        assert whole.usage_metadata
        assert (whole.usage_metadata.candidates_token_count or 0) > 0
        config = types.GenerateContentConfig(temperature=0, max_output_tokens=20)
        pieces = client.models.generate_content_stream(model="moa-tiny-chat", contents="hi", config=config)
        assert "".join(piece.text or "" for piece in pieces)
        count = client.models.count_tokens(model="moa-tiny-chat", contents="hi")
        assert (count.total_tokens or 0) > 0
        tool = types.FunctionDeclaration(
            name="weather",
            parameters_json_schema={
                "type": "object",
                "properties": {"city": {"enum": ["Seoul", "Paris"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        )
        must = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
        config = types.GenerateContentConfig(
            tools=[types.Tool(function_declarations=[tool])],
            tool_config=types.ToolConfig(function_calling_config=must),
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        called = client.models.generate_content(model="moa-tiny-chat", contents="Weather?", config=config)
        assert [call.name for call in called.function_calls or ()] == ["weather"]
        assert (called.function_calls or [])[0].args in ({"city": "Seoul"}, {"city": "Paris"})
        contents: list[Any] = ["a green square", Image.new("RGB", (64, 64), "red")]
        made = client.models.generate_content(model="moa-tiny-image", contents=contents)
        parts = [p for c in made.candidates or () if c.content for p in c.content.parts or ()]
        assert [opened(p.inline_data.data or b"").format for p in parts if p.inline_data] == ["PNG"]
        assert {model.name for model in client.models.list()} >= {"models/moa-tiny-chat", "models/moa-tiny-image"}
