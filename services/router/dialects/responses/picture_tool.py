"""The hosted tool `image_generation` served by an image model of ours: what the model of a chat is offered.

Source: OpenAI's guide "Image generation" and its reference, "Create a model response", `tools`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1 import text_pb2
from services.catalogue import Model
from services.common.errors import InvalidField, MoaError, Unsupported
from services.router.dialects.media import image_from_text
from services.router.dialects.openai.image_request import Wanted, drop_hints, preview_every, request_from
from services.router.dialects.reply import JSON, encode
from services.router.dialects.responses.items import Json
from services.router.dialects.unknown import MOST_NAMED, convert_liberally, printable, refuse

KIND: Final = "image_generation"
"""The tool's type, and what the model calls it."""
MOST_PICTURES: Final = 8
"""How many images one response makes at most."""
_OPENAIS: Final = ("gpt-image-", "chatgpt-image-")
"""How the models are called that OpenAI runs the tool with."""
_PASSING: Final = (
    *("model", "size", "quality", "background", "output_format", "output_compression", "moderation"),
    *("partial_images", "input_fidelity"),
)
"""Fields that the tool and OpenAI's API of images share."""
PLAIN: Final = Wanted(
    kind="generation",
    links=None,
    stream=False,
    partial_images=0,
    output_format="",
    compression=None,
    quality="auto",
    background="auto",
    ignored=[],
)
"""What is wanted of images about which nothing is said."""
_REFUSED: Final = ("frame_count", "frame_duration_ms", "svg")
_TELLS: Final = "Make a picture and show it to the user, whenever the user asks for one."
_PROMPT: Final = "All that the picture shows: whoever makes it sees nothing else."
_ACTION: Final = "`edit` changes the last picture of the conversation as the prompt says; `generate` makes a new one."


class Mask(Struct, forbid_unknown_fields=True):
    """Where an edit paints."""

    image_url: str | None = None
    file_id: str | None = None


class ImageTool(Struct, kw_only=True):
    """The tool, as far as it is no field of an image's request. Fields that nobody knows are ignored by name."""

    type: str
    action: Literal["auto", "generate", "edit"] | None = None
    input_image_mask: Mask | None = None


class Arguments(Struct):
    """What the model calls it with."""

    prompt: str
    action: Literal["generate", "edit"] | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The tool as it is offered."""

    name: str
    """What the model calls it."""
    action: str
    template: GenerateImageRequest
    """What is asked of the image model, but for the prompt and the images to change."""
    model: Model
    """Who makes the images."""
    wanted: Wanted
    ignored: Sequence[str] = ()
    """Fields of the tool without effect."""
    most: int = MOST_PICTURES
    """How many images the response makes at most."""

    @property
    def edits(self) -> bool:
        """Whether images can be changed."""
        return self.action != "generate" and self.model.can("edit")

    def tool(self, *, has_pictures: bool) -> text_pb2.Tool:
        """Return the function that the model is offered; `has_pictures`: whether there is any to change."""
        fields: Json = {"prompt": {"type": "string", "description": _PROMPT}}
        if self.edits and has_pictures and self.action == "auto":
            fields["action"] = {"type": "string", "enum": ["generate", "edit"], "description": _ACTION}
        schema = {"type": "object", "properties": fields, "required": ["prompt"], "additionalProperties": False}
        return text_pb2.Tool(name=self.name, description=_TELLS, parameters_json=encode(schema).decode())

    def request(self, arguments: Arguments, pictures: Sequence[media_pb2.ImageInput]) -> GenerateImageRequest:
        """Return what is asked of the image model. `pictures`: the conversation's, of which the last is changed.

        Raises InvalidField.
        """
        made = GenerateImageRequest()
        made.CopyFrom(self.template)
        made.prompt = arguments.prompt
        edits = self.edits and (self.action == "edit" or arguments.action == "edit")
        if edits and not pictures:
            raise InvalidField("there is no picture to change; send one in input, or let action be auto")
        if edits:
            made.operation = image_pb2.OPERATION_EDIT
            made.images.append(pictures[-1])
        else:
            made.ClearField("mask")
        return made


def runs_at_openai(tools: Sequence[Json], model: Model) -> bool:
    """Return whether a chat's model has the tool of its own, and so makes the images itself."""
    if model.limits.method != "responses" or KIND not in model.limits.hosted_tools:
        return False
    named = [tool.get("model") for tool in tools if tool.get("type") == KIND]
    return all(name is None or (isinstance(name, str) and name.startswith(_OPENAIS)) for name in named)


def place_of(tools: Sequence[Json]) -> int | None:
    """Return the place of the tool among a body's; None where it is not there. Raises InvalidField for two."""
    places = [index for index, tool in enumerate(tools) if tool.get("type") == KIND]
    if len(places) > 1:
        raise InvalidField(f"{KIND} is offered twice", param=f"tools[{places[1]}]")
    return places[0] if places else None


def template_of(
    given: Json, place: int, *, stream: bool, strict: bool, user: str
) -> tuple[ImageTool, GenerateImageRequest, Wanted]:
    """Read the tool. Raises InvalidField or Unsupported, naming its fields."""
    where = f"tools[{place}]"
    with below(where):
        for name in _REFUSED:
            if given.get(name) is not None:
                raise Unsupported(f"{name} is not supported here", param=name)
        tool = convert_liberally(given, ImageTool).body
        known = {*_PASSING, *_REFUSED, *ImageTool.__struct_encode_fields__}
        unknown = [printable(name) for name in given if name not in known][:MOST_NAMED]
        refuse(unknown, strict=strict)
        body = {name: given[name] for name in _PASSING if given.get(name) is not None}
        partial = 0 if stream else body.pop("partial_images", 0)
        asked = encode({**body, "prompt": "-", "stream": stream, "user": user or None})
        request, wanted = request_from(asked, JSON, "generation", strict=strict)
        wanted.ignored.extend([*unknown, *["partial_images"] * bool(partial)])
        if (mask := tool.input_image_mask) is not None:
            if mask.image_url is None:
                message = "files by their id are the operator's; send image_url"
                raise Unsupported(message, param="input_image_mask.file_id")
            request.mask.CopyFrom(image_from_text(mask.image_url, param="input_image_mask.image_url"))
    return tool, request, wanted


def offered(
    tool: ImageTool, request: GenerateImageRequest, wanted: Wanted, model: Model, *, place: int, name: str, most: int
) -> Offer:
    """Return the tool as it is offered, its images made by `model`. Raises InvalidField, Unsupported."""
    where, action = f"tools[{place}]", tool.action or "auto"
    request.model, request.provider = model.id, model.provider
    with below(where):
        if action == "edit" and not model.can("edit"):
            message = f"model {model.id} changes no pictures; leave action out, or name another model"
            raise Unsupported(message, param="action")
        ignored = [*wanted.ignored, *drop_hints(request, model, strict=request.strict)]
        if wanted.partial_images and request.stream:
            if model.can("preview"):
                request.preview_every = preview_every(model, wanted.partial_images)
            else:
                ignored.append("partial_images")
    named = [f"{where}.{each}" for each in ignored]
    return Offer(name=name, action=action, template=request, wanted=wanted, model=model, ignored=named, most=most)


@contextmanager
def below(where: str) -> Iterator[None]:
    """Let errors name a field of the tool by its path in the body."""
    try:
        yield
    except MoaError as error:
        path = f"{where}.{error.param}" if error.param else where
        if error.param and error.message.startswith(error.param):
            error.message = path + error.message.removeprefix(error.param)
        error.param = path
        raise


def arguments_of(words: str) -> Arguments | None:
    """Return what the model called the tool with; None where it cannot be read."""
    try:
        return msgspec.json.decode(words or "{}", type=Arguments)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def name_among(tools: Sequence[Any]) -> str:
    """Return a name for the function that no tool of the caller's has."""
    taken = {tool.name for tool in tools}
    return next(name for number in range(len(taken) + 1) if (name := KIND + f"_{number}" * bool(number)) not in taken)
