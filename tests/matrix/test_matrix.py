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
from google.genai import errors
from PIL import Image

from tests.dialects import ANSWERING
from tests.dialects import openai as openai_rig
from tests.dialects.rig import ARGUMENTS, GIVEN, NAME
from tests.emulators.script import Call
from tests.matrix.asker import Unavailable
from tests.matrix.conftest import CLOUDS, PICTURES, World
from tests.router.rig import picture

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")

MODELS = ["local-chat", *(f"{cloud}-model" for cloud in CLOUDS)]
SAID = "Hello 안녕 🌍!"


# One function a dialect and a feature: it asks, and gives the text that was answered.


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


ASKS = [
    *(ask for rig in ANSWERING.values() for ask in rig.texts),
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


VISIONS = [ask for rig in ANSWERING.values() for ask in rig.visions]


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("ask", VISIONS, ids=lambda ask: ask.__name__)
def test_vision(world: World, ask: Callable[[World, str], str], cloud: str) -> None:
    """An image reaches every provider in its own form."""
    assert ask(world, f"{cloud}-model") == SAID
    assert image_bytes(world.asked(cloud)) == [8]


# Tools: a call, and the turn that gives its result back.


TOOLS = [rig.tools for rig in ANSWERING.values()]


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


def openai_on_node_image(world: World, model: str) -> list[bytes]:
    return [base64.b64decode(_from_node(world, "client", "image", model))]


PAINTS: list[Paint] = [*(rig.paint for rig in ANSWERING.values() if rig.paint), openai_on_node_image]
EDITS: list[Paint] = [rig.edit for rig in ANSWERING.values() if rig.edit]


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
    with openai_rig.client(world) as client:
        made = client.images.edit(
            model=LOCAL,
            prompt="a red circle",
            image=GIVEN,
            mask=picture(64, 64, colour="white"),
            response_format="b64_json",
        )
    assert made.data
