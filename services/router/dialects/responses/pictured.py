"""Requests with pictures: whether OpenAI makes them, or an image model of the catalogue does for any chat's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import Unsupported
from services.router.dialects.reading import Reading
from services.router.dialects.responses import picture_tool
from services.router.dialects.responses.items import VENDOR as OWN_KINDS
from services.router.dialects.responses.items import Json
from services.router.dialects.responses.picture_tool import KIND, Offer
from services.router.dialects.responses.picture_turns import Shown, shown
from services.router.dialects.responses.places import Places, as_the_caller_wrote
from services.router.dialects.responses.rounds import Rounds
from services.router.domain.answer import Answer
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.domain.prompt import Prompt
from services.router.operations.image import IMAGE, ImageCall
from services.router.operations.text import TextCall

_OPENAI: Final = "openai"
_RESPONSES: Final = "responses"


class Pictured:
    """Begins answers to requests that offer `image_generation`, or have pictures that were made by it."""

    def __init__(self, operations: Operations, reading: Reading) -> None:
        self._operations, self._reading = operations, reading

    async def begin(
        self, request: GenerateTextRequest, prompt: Prompt, places: Places, tools: Sequence[Json], caller: Caller
    ) -> Answer[Any] | Rounds:
        """Begin an answer. Raises as `Operations.begin`, and where no image model can make what the tool says."""
        model, _ = await self._operations.model(request.model, caller)
        if picture_tool.runs_at_openai(tools, model):
            with as_the_caller_wrote(places):
                return await self._operations.begin(TextCall(request, prompt), caller)
        name = picture_tool.name_among(request.tools)
        conversation = shown(request.messages, places, name, shows=model.can("vision"))
        offer = await self._offer(request, tools, caller, name)
        _put(request, conversation, offer)
        _choose(request, offer)
        looked = replace(await self._reading.prompt_of(request), conversation=prompt.conversation)
        kept = GenerateTextRequest()
        if offer is not None:
            kept.CopyFrom(request)
        with as_the_caller_wrote(conversation.places):
            answer = await self._operations.begin(TextCall(request, looked), caller)
        if offer is None:
            return answer
        number, pictures = conversation.count, conversation.pictures
        return Rounds(self._operations, caller, offer, kept, answer, number=number, pictures=pictures)

    async def counted(self, request: CountTokensRequest, places: Places, caller: Caller) -> Places:
        """Make a prompt that is to be counted what its model is shown; return where its messages stand then."""
        model, _ = await self._operations.model(request.model, caller)
        if picture_tool.runs_at_openai((), model):
            return places
        name = picture_tool.name_among(request.tools)
        conversation = shown(request.messages, places, name, shows=model.can("vision"))
        offered = any(map(_is_tool, request.tools))
        template, plain = GenerateImageRequest(), picture_tool.PLAIN
        offer = Offer(name=name, action="auto", template=template, model=model, wanted=plain) if offered else None
        _put(request, conversation, offer)
        return conversation.places

    async def _offer(
        self, request: GenerateTextRequest, tools: Sequence[Json], caller: Caller, name: str
    ) -> Offer | None:
        """Return the tool as it is offered; None where it is not. Raises MoaError."""
        place = picture_tool.place_of(tools)
        if place is None or not any(map(_is_tool, request.tools)):
            return None
        given = tools[place]
        tool, template, wanted = picture_tool.template_of(
            given, place, stream=request.stream, strict=request.strict, user=request.user
        )
        with picture_tool.below(f"tools[{place}]"):
            if given.get("model") is None:
                template.model = await self._operations.usual(ImageCall(template), caller)
            model, makes = await self._operations.model(template.model, caller)
            if makes != IMAGE.name:
                raise Unsupported(f"model {model.id} makes no images; name one that does", param="model")
            await self._operations.permitted(caller, IMAGE.quota, model)
        return picture_tool.offered(tool, template, wanted, model, place=place, name=name, most=_most(request))


def _is_tool(tool: text_pb2.Tool) -> bool:
    if tool.name or tool.vendor.vendor != OWN_KINDS:
        return False
    given: Any = vendor_fields.fields_of(tool.vendor, OWN_KINDS).get("tool")
    return isinstance(given, dict) and given.get("type") == KIND


def _put(request: GenerateTextRequest | CountTokensRequest, conversation: Shown, offer: Offer | None) -> None:
    """Put the conversation and the function into a request."""
    tools = [tool for tool in request.tools if not _is_tool(tool)]
    if offer is not None:
        tools.append(offer.tool(has_pictures=bool(conversation.pictures)))
    del request.tools[:], request.messages[:]
    request.tools.extend(tools)
    request.messages.extend(conversation.messages)


def _own(request: GenerateTextRequest) -> tuple[Json, Json]:
    """Return the request's fields of OpenAI's own, and those among them of the Responses API alone."""
    fields = vendor_fields.fields_of(request.vendor, _OPENAI)
    own = fields.get(_RESPONSES)
    return fields, own if isinstance(own, dict) else {}


def _most(request: GenerateTextRequest) -> int:
    _, own = _own(request)
    most = own.get("max_tool_calls")
    return min(most, picture_tool.MOST_PICTURES) if isinstance(most, int) else picture_tool.MOST_PICTURES


def _choose(request: GenerateTextRequest, offer: Offer | None) -> None:
    """Say the choice of the tool, and how often it is called at most, where whoever answers need not know them."""
    if offer is None:
        return
    fields, own = _own(request)
    own.pop("max_tool_calls", None)
    choice = own.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == KIND:
        del own["tool_choice"]
        request.tool_choice.mode = text_pb2.ToolChoice.MODE_NAMED
        request.tool_choice.name = offer.name
    names = [name for name in request.vendor.names if name != "max_tool_calls"]
    request.vendor.CopyFrom(vendor_fields.envelope(_OPENAI, fields | {_RESPONSES: own}, names))
