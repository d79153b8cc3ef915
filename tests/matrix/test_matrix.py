"""Every dialect reaches every model, by the official clients, through the real edge."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import openai
import pytest
import requests
from google import genai
from google.genai import errors, types
from PIL import Image

from tests.emulators.script import Call
from tests.matrix.asker import Unavailable
from tests.matrix.conftest import CLOUDS, PICTURES, World
from tests.router.rig import picture

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")

MODELS = ["local-chat", *(f"{cloud}-model" for cloud in CLOUDS)]
SAID = "Hello 안녕 🌍!"
GIVEN = picture(64, 64)
GIVEN_URI = "data:image/png;base64," + base64.b64encode(GIVEN).decode()
DATA_URI = "data:image/png;base64," + base64.b64encode(picture()).decode()


def openai_client(world: World) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{world.url}/v1", api_key=world.key, max_retries=0, timeout=60)


def google_client(world: World) -> genai.Client:
    return genai.Client(api_key=world.key, http_options=types.HttpOptions(base_url=world.url))


def native(world: World, path: str, body: dict[str, Any]) -> Any:
    got = requests.post(world.url + path, json=body, headers={"X-API-Key": world.key}, timeout=60)
    assert got.status_code == 200, got.text
    return got


def frames(got: requests.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in got.content.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


# One function a dialect and a feature: it asks, and gives the text that was answered.


def native_text(world: World, model: str) -> str:
    body = {"model_id": model, "messages": [{"role": "user", "content": "hi"}]}
    return str(native(world, "/generate/text", body).json()["response"])


def native_stream(world: World, model: str) -> str:
    body = {"model_id": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return "".join(frame.get("response", "") for frame in frames(native(world, "/generate/text", body)))


def openai_text(world: World, model: str) -> str:
    with openai_client(world) as client:
        made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    assert made.usage
    assert made.usage.completion_tokens > 0
    return made.choices[0].message.content or ""


def openai_stream(world: World, model: str) -> str:
    with openai_client(world) as client:
        stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def google_text(world: World, model: str) -> str:
    with google_client(world) as client:
        made = client.models.generate_content(model=model, contents="hi")
    assert made.usage_metadata
    assert (made.usage_metadata.candidates_token_count or 0) > 0
    return made.text or ""


def google_stream(world: World, model: str) -> str:
    with google_client(world) as client:
        return "".join(p.text or "" for p in client.models.generate_content_stream(model=model, contents="hi"))


def _from_node(world: World, how: str, what: str, model: str) -> str:
    try:
        return world.node.ask(how, what, model)
    except Unavailable as why:
        pytest.skip(str(why))


def node_text(world: World, model: str) -> str:
    return _from_node(world, "fetch", "text", model)


def node_stream(world: World, model: str) -> str:
    return _from_node(world, "fetch", "stream", model)


def openai_on_node_text(world: World, model: str) -> str:
    return _from_node(world, "client", "text", model)


def openai_on_node_stream(world: World, model: str) -> str:
    return _from_node(world, "client", "stream", model)


ASKS: list[Callable[[World, str], str]] = [
    native_text,
    native_stream,
    openai_text,
    openai_stream,
    google_text,
    google_stream,
    node_text,
    node_stream,
    openai_on_node_text,
    openai_on_node_stream,
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)
def test_text(world: World, ask: Callable[[World, str], str], model: str) -> None:
    """Text, whole and streamed: what the provider said, letter for letter; the local model says something."""
    answered = ask(world, model)
    if model == "local-chat":
        assert answered
    else:
        assert answered == SAID


# Vision.


def native_vision(world: World, model: str) -> str:
    message = {"role": "user", "content": "what is it?"}
    body = {"model_id": model, "messages": [message], "image_data": DATA_URI}
    return str(native(world, "/generate/text", body).json()["response"])


def native_analysis(world: World, model: str) -> str:
    body = {"model_id": model, "prompt": "what is it?", "image_data": DATA_URI}
    return str(native(world, "/generate/image", body).json()["response"])


def openai_vision(world: World, model: str) -> str:
    parts: Any = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": DATA_URI}}]
    with openai_client(world) as client:
        made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    return made.choices[0].message.content or ""


def google_vision(world: World, model: str) -> str:
    contents: list[Any] = [Image.open(BytesIO(picture())), "what is it?"]
    with google_client(world) as client:
        return client.models.generate_content(model=model, contents=contents).text or ""


def image_bytes(body: Any) -> list[int]:
    """Find the widths of the images in whatever a provider was sent."""
    found = []
    if isinstance(body, dict):
        for value in body.values():
            found += image_bytes(value)
    elif isinstance(body, list):
        for value in body:
            found += image_bytes(value)
    elif isinstance(body, str) and len(body) > 60:
        with contextlib.suppress(ValueError, OSError):
            found.append(Image.open(BytesIO(base64.b64decode(body.partition("base64,")[2] or body))).width)
    return found


VISIONS: list[Callable[[World, str], str]] = [native_vision, native_analysis, openai_vision, google_vision]


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("ask", VISIONS, ids=lambda ask: ask.__name__)
def test_vision(world: World, ask: Callable[[World, str], str], cloud: str) -> None:
    """An image reaches every provider in its own form."""
    assert ask(world, f"{cloud}-model") == SAID
    assert image_bytes(world.asked(cloud)) == [8]


# Tools: a call, and the turn that gives its result back.

NAME, ARGUMENTS, RESULT = "weather", {"city": "서울"}, {"sky": "맑음"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": NAME, "description": "the weather", "parameters": SCHEMA}}


def native_tools(world: World, model: str) -> tuple[Any, str]:
    first = {"role": "user", "content": "날씨?"}
    body = {"model_id": model, "messages": [first], "tools": [TOOL]}
    calls = native(world, "/generate/text", body).json()["tool_calls"]
    turns = [first, {"role": "assistant", "tool_calls": calls}]
    turns.append({"role": "tool", "tool_call_id": calls[0]["id"], "content": json.dumps(RESULT, ensure_ascii=False)})
    answer = native(world, "/generate/text", {**body, "messages": turns}).json()["response"]
    return json.loads(calls[0]["function"]["arguments"]), answer


def openai_tools(world: World, model: str) -> tuple[Any, str]:
    messages: list[Any] = [{"role": "user", "content": "날씨?"}]
    with openai_client(world) as client:
        said = client.chat.completions.create(model=model, messages=messages, tools=[TOOL]).choices[0].message
        assert said.tool_calls
        call = said.tool_calls[0]
        assert call.type == "function"
        messages.append(said.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(RESULT, ensure_ascii=False)})
        answer = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])
    return json.loads(call.function.arguments), answer.choices[0].message.content or ""


def google_tools(world: World, model: str) -> tuple[Any, str]:
    declared = types.FunctionDeclaration(name=NAME, description="the weather", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    with google_client(world) as client:
        chat = client.chats.create(model=model, config=config)
        calls = chat.send_message("날씨?").function_calls
        assert calls
        part = types.Part.from_function_response(name=NAME, response=RESULT)
        assert part.function_response
        part.function_response.id = calls[0].id
        return calls[0].args, chat.send_message(part).text or ""


TOOLS: list[Callable[[World, str], tuple[Any, str]]] = [native_tools, openai_tools, google_tools]


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("ask", TOOLS, ids=lambda ask: ask.__name__)
def test_tools(world: World, ask: Callable[[World, str], tuple[Any, str]], cloud: str) -> None:
    """A provider's call reaches the client, its result the provider, and the answer the client."""
    pieces = ('{"city"', ': "서울"}')
    world.play(cloud, text=(), calls=(Call(id="call_1", name=NAME, arguments=pieces),))
    arguments, answer = ask(world, f"{cloud}-model")
    assert (arguments, answer) == (ARGUMENTS, SAID)
    assert "맑음" in json.dumps(world.asked(cloud), ensure_ascii=False)


# Images. Each gives the images that were answered.

Paint = Callable[[World, str], list[bytes]]
LOCAL = "local-picture"


def native_image(world: World, model: str) -> list[bytes]:
    body = {"model_id": model, "prompt": "a red circle"}
    return [base64.b64decode(data) for data in native(world, "/create/image", body).json()["images"]]


def native_edit(world: World, model: str) -> list[bytes]:
    body = {"model_id": model, "prompt": "a red circle", "image_data": GIVEN_URI}
    return [base64.b64decode(data) for data in native(world, "/generate/image", body).json()["images"]]


def openai_image(world: World, model: str) -> list[bytes]:
    with openai_client(world) as client:
        made = client.images.generate(model=model, prompt="a red circle")
    assert made.data
    if "gpt-image" in model:
        return [base64.b64decode(each.b64_json or "") for each in made.data]
    return [requests.get(each.url or "", timeout=10).content for each in made.data]


def openai_edit(world: World, model: str) -> list[bytes]:
    with openai_client(world) as client:
        made = client.images.edit(model=model, prompt="a red circle", image=GIVEN, response_format="b64_json")
    assert made.data
    return [base64.b64decode(each.b64_json or "") for each in made.data]


def openai_on_node_image(world: World, model: str) -> list[bytes]:
    return [base64.b64decode(_from_node(world, "client", "image", model))]


def _google_image(world: World, model: str, contents: list[Any]) -> list[bytes]:
    with google_client(world) as client:
        made = client.models.generate_content(model=model, contents=contents)
    parts = [part for c in made.candidates or () if c.content for part in c.content.parts or ()]
    return [part.inline_data.data or b"" for part in parts if part.inline_data]


def google_image(world: World, model: str) -> list[bytes]:
    return _google_image(world, model, ["a red circle"])


def google_edit(world: World, model: str) -> list[bytes]:
    return _google_image(world, model, ["a red circle", Image.open(BytesIO(GIVEN))])


PAINTS: list[Paint] = [native_image, openai_image, openai_on_node_image, google_image]
EDITS: list[Paint] = [native_edit, openai_edit, google_edit]


def sizes(images: list[bytes]) -> list[tuple[int, int]]:
    return [Image.open(BytesIO(data)).size for data in images]


@pytest.mark.parametrize("model", [LOCAL, *PICTURES])
@pytest.mark.parametrize("paint", PAINTS, ids=lambda paint: paint.__name__)
def test_images(world: World, paint: Paint, model: str) -> None:
    """An image is made through every dialect: the provider's own, for the caller's prompt."""
    made = sizes(paint(world, model))
    if model == LOCAL:
        assert made == [(64, 64)]
    else:
        assert made == [(16, 16)]
        assert "a red circle" in str(world.asked(model.partition("/")[0]))


@pytest.mark.parametrize("model", [LOCAL, *PICTURES])
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_edits(world: World, edit: Paint, model: str) -> None:
    """An image is changed through every dialect; a model that cannot refuses, and its provider is not asked."""
    if model == LOCAL:
        assert sizes(edit(world, model)) == [(64, 64)]
    elif model in world.editors:
        assert sizes(edit(world, model)) == [(16, 16)]
        assert "a red circle" in str(world.asked(model.partition("/")[0]))
    else:
        with pytest.raises(
            (AssertionError, openai.BadRequestError, errors.ClientError), match=r"does not support edit|inside a mask"
        ):
            edit(world, model)
        assert not world.emulators[model.partition("/")[0]].seen


def test_a_mask(world: World) -> None:
    """A mask reaches the local model."""
    with openai_client(world) as client:
        made = client.images.edit(
            model=LOCAL,
            prompt="a red circle",
            image=GIVEN,
            mask=picture(64, 64, colour="white"),
            response_format="b64_json",
        )
    assert made.data
