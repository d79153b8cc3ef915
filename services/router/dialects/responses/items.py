"""From the input's items to the contract's messages.

What the model made in a turn is several items here (reasoning, a message, calls) and one message in the contract.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Collection
from typing import Any, Final

from moa.text.v1 import text_pb2
from services.common import vendor_fields
from services.common.errors import InvalidField, MoaError, Unsupported
from services.router.dialects.media import file_from_base64, file_from_url, image_from_base64, image_from_url
from services.router.dialects.responses import bodies, sealed, spaces
from services.router.dialects.results import of_result
from services.router.dialects.tools import GOOGLE, split_id
from services.router.dialects.unknown import MOST_NAMED, Extra, Read, at, convert_liberally, printable

Json = dict[str, Any]

VENDOR: Final = "openai.responses"
"""Whose fields the parts of the Responses API's own kinds are: OpenAI's chats do not take them."""

_ROLES: Final = {
    "system": text_pb2.ROLE_SYSTEM,
    "developer": text_pb2.ROLE_SYSTEM,
    "user": text_pb2.ROLE_USER,
    "assistant": text_pb2.ROLE_ASSISTANT,
}
_OURS: Final = ("_output", "_response")
"""How the types of items end that a caller makes."""


class Conversation:
    """The messages that items become.

    Args:
        instructions: What stands above them.
        joined: The namespaces whose functions are offered by one name for both.
    """

    def __init__(self, instructions: str = "", *, joined: Collection[str] = ()) -> None:
        self._joined = joined
        self.messages: list[text_pb2.Message] = []
        self.places: list[list[str]] = []
        """Of each message, the caller's path of each of its parts."""
        self.names: list[str] = []
        """Paths of fields that nobody here knows."""
        self.has_pictures = False
        """Whether there are images that the model had made."""
        self._shown: list[tuple[text_pb2.Part, str]] = []
        """What results hold beside text, and is not shown yet."""
        if instructions:
            self._add(text_pb2.ROLE_SYSTEM, text_pb2.Part(text=instructions), "instructions")

    def add_input(self, given: str | list[Json], *, earlier: int = 0, name: str = "input") -> None:
        """Add all items of a field, the first `earlier` of which are of what the request goes on from.

        Raises Malformed, InvalidField, Unsupported, UnsupportedMedia or TooLarge.
        """
        if isinstance(given, str):
            if given:
                self._add(text_pb2.ROLE_USER, text_pb2.Part(text=given), "input")
            return
        for index, item in enumerate(given):
            self._add_item(item, f"{name}[{index - earlier}]" if index >= earlier else "previous_response_id")
        self._show()

    def _add_item(self, given: Json, where: str) -> None:
        kind = kind_of(given, where)
        if not kind.endswith("_output"):
            self._show()
        if kind == "item_reference":
            raise Unsupported("items are not kept here; send the item itself in input", param=where)
        model = bodies.ITEMS.get(kind)
        if model is None:
            self._add_own(given, kind, where)
            return
        item, extra = self._read(given, model, where)
        if isinstance(item, bodies.MessageItem):
            self._add_message(item, extra, where)
        elif isinstance(item, bodies.ReasoningItem):
            shown = "".join(piece.text for piece in item.content or item.summary or ())
            thought = sealed.opened(item.encrypted_content or "", shown)
            if thought.text or thought.signature:
                self._add_made(text_pb2.Part(reasoning=thought), extra, where)
        elif isinstance(item, bodies.OutputItem):
            self._add_output(item, extra, where)
        else:
            if item.namespace and item.namespace not in self._joined:
                extra = {**extra, "namespace": item.namespace}
            self._add_made(text_pb2.Part(tool_call=self._call_from(item)), extra, where)

    def _read(self, given: Json, model: type[bodies.Item], where: str) -> tuple[bodies.Item, Extra]:
        try:
            read: Read[bodies.Item] = convert_liberally(given, model)
        except InvalidField as error:
            raise below(error, where) from None
        self.names += [f"input[].{name}" for name in read.names][: MOST_NAMED - len(self.names)]
        return read.body, read.extra

    def _add_message(self, item: bodies.MessageItem, extra: Extra, where: str) -> None:
        role = _ROLES[item.role]
        parts: list[tuple[text_pb2.Part, str]] = []
        if isinstance(item.content, str):
            parts.append((text_pb2.Part(text=item.content), f"{where}.content"))
        else:
            for number, part in enumerate(item.content):
                place = f"{where}.content[{number}]"
                made = _part_from(part, place)
                _carry(made, at(extra, "content", number))
                parts.append((made, place))
        if not parts:
            raise InvalidField(f"{where}.content must not be empty", param=f"{where}.content")
        beside = {name: value for name, value in extra.items() if name != "content"}
        if item.phase is not None:
            beside["phase"] = item.phase
        for number, (made, place) in enumerate(parts):
            if number == 0:
                _carry(made, beside)
            self._add(role, made, place, joins=number > 0 or role == text_pb2.ROLE_ASSISTANT)

    def _call_from(self, item: bodies.FunctionCallItem | bodies.CustomCallItem) -> text_pb2.ToolCall:
        call_id, signature = split_id(item.call_id)
        space = item.namespace or ""
        name = spaces.joined(space, item.name) if space in self._joined else item.name
        if isinstance(item, bodies.CustomCallItem):
            made = text_pb2.ToolCall(id=call_id, name=name, arguments_json=item.input, custom=True)
        else:
            made = text_pb2.ToolCall(id=call_id, name=name, arguments_json=item.arguments)
        if signature:
            made.signature, made.signer = signature, GOOGLE
        return made

    def _add_output(self, item: bodies.OutputItem, extra: Extra, where: str) -> None:
        call_id, _ = split_id(item.call_id)
        texts: list[str] = []
        if isinstance(item.output, str):
            texts.append(item.output)
        others: list[tuple[text_pb2.Part, str]] = []
        for number, part in enumerate(item.output if isinstance(item.output, list) else ()):
            place = f"{where}.output[{number}]"
            made = _part_from(part, place)
            if made.HasField("text"):
                texts.append(made.text)
            else:
                others.append((made, place))
        if others:
            self._shown += [(text_pb2.Part(text=of_result(call_id)), where), *others]
        result = text_pb2.ToolResult(tool_call_id=call_id, name=item.name or "", content="".join(texts))
        made = text_pb2.Part(tool_result=result)
        _carry(made, extra)
        self._add(text_pb2.ROLE_TOOL, made, where)

    def _add_own(self, given: Json, kind: str, where: str) -> None:
        """Add an item of a kind that only OpenAI knows."""
        made = text_pb2.Part()
        if kind == "image_generation_call":
            self.has_pictures = True
            # The file is an image as others are.
            if isinstance(given.get("result"), str) and given["result"]:
                made.image.CopyFrom(image_from_base64(given["result"], param=f"{where}.result"))
            given = {name: value for name, value in given.items() if name != "result"}
        made.vendor.CopyFrom(vendor_fields.envelope(VENDOR, {"item": given}, [kind]))
        if kind.endswith(_OURS):
            self._add(text_pb2.ROLE_USER, made, where)
        else:
            self._add_made(made, {}, where)

    def _add_made(self, part: text_pb2.Part, extra: Extra, where: str) -> None:
        """Add what the model made to its turn."""
        _carry(part, extra)
        self._add(text_pb2.ROLE_ASSISTANT, part, where, joins=True)

    def _add(self, role: text_pb2.Role.ValueType, part: text_pb2.Part, where: str, *, joins: bool = False) -> None:
        if joins and self.messages and self.messages[-1].role == role:
            self.messages[-1].parts.append(part)
            self.places[-1].append(where)
            return
        self.messages.append(text_pb2.Message(role=role, parts=[part]))
        self.places.append([where])

    def _show(self) -> None:
        """Show what the results before hold beside text, in a turn that no caller wrote."""
        for number, (part, place) in enumerate(self._shown):
            self._add(text_pb2.ROLE_USER, part, place, joins=number > 0)
        self._shown = []


def kind_of(given: Json, where: str) -> str:
    """Return the type of an item or a tool. Raises InvalidField."""
    kind = given.get("type")
    if isinstance(kind, str) and kind:
        return printable(kind)
    if kind is None:
        if "role" in given:
            return "message"
        if "id" in given:
            return "item_reference"
        raise InvalidField(f"{where}.type is required", param=f"{where}.type")
    raise InvalidField(f"{where}.type: expected a string", param=f"{where}.type")


def below(error: InvalidField, where: str) -> MoaError:
    """Return an error of an item with the item's path before the field's."""
    name = f"{where}.{error.param}" if error.param else where
    if error.param and error.message.startswith(error.param):
        error.message = name + error.message.removeprefix(error.param)
    else:
        error.message = f"{name}: {error.message}"
    error.param = name
    return error


def _carry(part: text_pb2.Part, fields: Extra) -> None:
    """Put fields that nobody here knows beside a part, for OpenAI's Responses API."""
    if fields:
        given = vendor_fields.fields_of(part.vendor, VENDOR) | {str(name): value for name, value in fields.items()}
        part.vendor.CopyFrom(vendor_fields.envelope(VENDOR, given))


def _part_from(part: bodies.ContentPart, where: str) -> text_pb2.Part:
    if isinstance(part, bodies.InputText | bodies.OutputText):
        return text_pb2.Part(text=part.text)
    if isinstance(part, bodies.Refusal):
        return text_pb2.Part(text=part.refusal)
    if isinstance(part, bodies.InputImage):
        if part.image_url is None:
            raise _stored("images", "image_url", where)
        made = text_pb2.Part(image=image_from_url(part.image_url, param=f"{where}.image_url"))
        if part.detail not in (None, "auto"):
            _carry(made, {"detail": part.detail})
        return made
    if isinstance(part, bodies.InputAudio):
        sound = part.input_audio
        place = f"{where}.input_audio.data"
        return text_pb2.Part(file=file_from_base64(sound.data, f"audio/{sound.format}", param=place))
    return text_pb2.Part(file=_file_from(part, where))


def _file_from(part: bodies.InputFile, where: str) -> Any:
    name = part.filename or ""
    if part.file_url is not None:
        kind = mimetypes.guess_type(part.file_url.partition("?")[0])[0] or "application/pdf"
        return file_from_url(part.file_url, kind, param=f"{where}.file_url")
    if part.file_data is None:
        raise _stored("files", "file_data", where)
    kind = "" if part.file_data.startswith("data:") else mimetypes.guess_type(name)[0] or "application/pdf"
    return file_from_base64(part.file_data, kind, param=f"{where}.file_data", name=name)


def _stored(what: str, instead: str, where: str) -> Unsupported:
    return Unsupported(f"{what} by their id are the operator's; send {instead}", param=f"{where}.file_id")
