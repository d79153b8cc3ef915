"""From Anthropic's turns to the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from moa.common.v1 import media_pb2
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.common.errors import InvalidField, Unsupported
from services.router.dialects.anthropic import bodies, carried, thoughts
from services.router.dialects.anthropic.places import Place
from services.router.dialects.media import file_from_base64, file_from_url, image_from_base64, image_from_url
from services.router.dialects.results import of_result
from services.router.dialects.tools import FunctionCall, ToolCall, call_from, split_id
from services.router.dialects.unknown import Extra, at

_ROLES: Final = {
    "user": text_pb2.ROLE_USER,
    "assistant": text_pb2.ROLE_ASSISTANT,
    "system": text_pb2.ROLE_SYSTEM,
}
_IN_RESULTS: Final = frozenset(("text", "image", "document"))
"""What a tool's result may hold at any vendor's model."""
_STORED: Final = "files by their id are the operator's; send them as base64"

Json = dict[str, Any]
Request = GenerateTextRequest | CountTokensRequest


class Turns:
    """Adds turns to a request, and keeps where each of its messages comes from."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.places: list[Place] = []
        self._shown: list[tuple[int, text_pb2.Part]] = []
        """What results of tools hold beside text, and is not shown yet: which block's, and the part."""
        self._names: dict[str, str] = {}
        """The name of each call's tool."""

    def add_system(self, system: str | Sequence[bodies.Block] | None, extra: Extra) -> None:
        """Add instructions. Raises Unsupported for what is no text."""
        if not system:
            return
        message = self._message(text_pb2.ROLE_SYSTEM, -1)
        if isinstance(system, str):
            message.parts.add(text=system)
            return
        for index, block in enumerate(system):
            where = f"system[{index}]"
            if block.type != "text":
                raise Unsupported(f"{where}: only text is taken", param=where)
            message.parts.append(_text(block, where))
            _finish(message.parts[-1], block, at(extra, index))

    def add(self, given: bodies.Message, index: int, extra: Extra) -> None:
        """Add a turn: results of tools stand in messages of their own, before what they show beside text.

        Raises InvalidField, Unsupported, UnsupportedMedia or TooLarge.
        """
        role = _ROLES[given.role]
        if isinstance(given.content, str):
            self._message(role, index, 0).parts.add(text=given.content)
            return
        message: text_pb2.Message | None = None
        for number, block in enumerate(given.content):
            where, beside = f"messages[{index}].content[{number}]", at(extra, "content", number)
            own = text_pb2.ROLE_TOOL if block.type == "tool_result" else role
            if message is None or message.role != own:
                self._show(index)
                message = self._message(own, index)
            message.parts.append(self._part(block, given.role, number, where, beside))
            self.places[-1].blocks.append(number)  # type: ignore[attr-defined]
        self._show(index)
        if message is None:
            if role != text_pb2.ROLE_ASSISTANT:
                raise InvalidField(f"messages[{index}].content is required", param=f"messages[{index}].content")
            self._message(role, index, 0).parts.add(text="")  # An answer without words, given back.

    def _message(self, role: text_pb2.Role.ValueType, index: int, *blocks: int) -> text_pb2.Message:
        self.places.append(Place(index, list(blocks)))
        return self._request.messages.add(role=role)

    def _show(self, index: int) -> None:
        """Add a turn with what the results before it hold, if they hold anything."""
        if self._shown:
            message = self._message(text_pb2.ROLE_USER, index, *(number for number, _ in self._shown))
            message.parts.extend(part for _, part in self._shown)
            self._shown.clear()

    def _part(self, block: bodies.Block, role: str, number: int, where: str, extra: Extra) -> text_pb2.Part:
        if block.type == "thinking" and role == "assistant":
            return text_pb2.Part(reasoning=thoughts.part_from(block.thinking or "", block.signature or ""))
        if block.type == "redacted_thinking" and role == "assistant":
            return text_pb2.Part(reasoning=thoughts.part_from("", block.data or "", redacted=True))
        if block.type == "tool_use":
            part = text_pb2.Part(tool_call=self._call(block, where))
        elif block.type == "tool_result":
            shown = block.content if isinstance(block.content, list) else ()
            if not all(isinstance(each, dict) and each.get("type") in _IN_RESULTS for each in shown):
                return carried.own_part(block, extra)
            part = text_pb2.Part(tool_result=self._result(block, number, where))
        elif block.type in _IN_RESULTS:
            part, spans = _shown(block, where)
            _finish(part, block, extra, spans)
            return part
        else:
            return carried.own_part(block, extra)
        _finish(part, block, extra)
        return part

    def _call(self, block: bodies.Block, where: str) -> text_pb2.ToolCall:
        for name in ("id", "name"):
            if not getattr(block, name):
                raise InvalidField(f"{where}.{name} is required", param=f"{where}.{name}")
        arguments = block.input if isinstance(block.input, dict) else {}
        call = ToolCall(id=block.id or "", function=FunctionCall(name=block.name or "", arguments=arguments))
        made = call_from(call, where)
        self._names[made.id] = made.name
        return made

    def _result(self, block: bodies.Block, number: int, where: str) -> text_pb2.ToolResult:
        if not block.tool_use_id:
            raise InvalidField(f"{where}.tool_use_id is required", param=f"{where}.tool_use_id")
        call_id, _ = split_id(block.tool_use_id)
        made = text_pb2.ToolResult(
            tool_call_id=call_id, name=self._names.get(call_id, ""), is_error=bool(block.is_error)
        )
        if block.content is None or isinstance(block.content, str):
            made.content = block.content or ""
            return made
        if not isinstance(block.content, list):
            raise InvalidField(f"{where}.content is a string or a list of blocks", param=f"{where}.content")
        texts: list[str] = []
        others: list[text_pb2.Part] = []
        for index, each in enumerate(block.content):
            inner = f"{where}.content[{index}]"
            part, _ = _shown(_block(each, inner), inner)
            if part.HasField("text"):
                texts.append(part.text)
            else:
                others.append(part)
        if others:
            self._shown += [(number, part) for part in (text_pb2.Part(text=of_result(call_id)), *others)]
        made.content = "\n".join(texts)
        return made


def _block(value: Any, where: str) -> bodies.Block:
    """Return a block inside another one; its fields that nobody here knows are of no use there."""
    known = {name: inner for name, inner in value.items() if name in bodies.Block.__struct_encode_fields__}
    try:
        return msgspec.convert(known, bodies.Block)
    except msgspec.ValidationError:
        raise InvalidField(f"{where} is no block", param=where) from None


def _shown(block: bodies.Block, where: str) -> tuple[text_pb2.Part, Json]:
    """Return a text, an image or a document, and where in its text the document's is."""
    if block.type == "text":
        return _text(block, where), {}
    if not isinstance(block.media, dict):
        raise InvalidField(f"{where}.source is required", param=f"{where}.source")
    if block.type == "image":
        return text_pb2.Part(image=_image(block.media, f"{where}.source")), {}
    return _document(block, block.media, f"{where}.source")


def _text(block: bodies.Block, where: str) -> text_pb2.Part:
    if block.text is None:
        raise InvalidField(f"{where}.text is required", param=f"{where}.text")
    return text_pb2.Part(text=block.text)


def _image(media: Json, where: str) -> media_pb2.ImageInput:
    kind = media.get("type")
    if kind == "base64":
        return image_from_base64(_string(media, "data", where), param=f"{where}.data")
    if kind == "url":
        return image_from_url(_string(media, "url", where), param=f"{where}.url")
    raise _unknown_source(kind, where)


def _document(block: bodies.Block, media: Json, where: str) -> tuple[text_pb2.Part, Json]:
    """Return a file, or the text of a document that is one."""
    kind, name = media.get("type"), block.title or ""
    if kind == "base64":
        mime = media.get("media_type")
        mime = mime if isinstance(mime, str) and mime else "application/pdf"
        data = _string(media, "data", where)
        return text_pb2.Part(file=file_from_base64(data, mime, param=f"{where}.data", name=name)), {}
    if kind == "url":
        url = _string(media, "url", where)
        return text_pb2.Part(file=file_from_url(url, "application/pdf", param=f"{where}.url")), {}
    if kind == "text":
        texts = [_string(media, "data", where)]
    elif kind == "content":
        texts = _texts(media.get("content"), where)
    else:
        raise _unknown_source(kind, where)
    heads = (f"{word}: {given}" for word, given in (("Title", name), ("Context", block.context)) if given)
    head = "".join(f"{line}\n" for line in ("<document>", *heads))
    ends = list(accumulate((len(text) + 1 for text in texts), initial=len(head)))
    spans = [[begin, begin + len(text)] for begin, text in zip(ends, texts, strict=False)]
    whole = head + "\n".join((*texts, "</document>"))
    return text_pb2.Part(text=whole), {"span": spans[0]} if kind == "text" else {"spans": spans}


def _texts(content: Any, where: str) -> list[str]:
    """Return the texts of a document that is written in blocks. Raises Unsupported for what is no text."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise InvalidField(f"{where}.content is required", param=f"{where}.content")
    texts = []
    for index, each in enumerate(content):
        text = each.get("text") if isinstance(each, dict) and each.get("type") == "text" else None
        if not isinstance(text, str):
            inner = f"{where}.content[{index}]"
            raise Unsupported(f"{inner}: only text is taken", param=inner)
        texts.append(text)
    return texts


def _string(media: Json, name: str, where: str) -> str:
    value = media.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidField(f"{where}.{name} is required", param=f"{where}.{name}")
    return value


def _unknown_source(kind: Any, where: str) -> InvalidField | Unsupported:
    if kind == "file":
        return Unsupported(_STORED, param=f"{where}.file_id")
    return InvalidField(f"{where}.type is base64 or url", param=f"{where}.type")


def _finish(part: text_pb2.Part, block: bodies.Block, extra: Extra, spans: Json | None = None) -> None:
    part.cache = block.cache_control is not None
    carried.put_part(part, block, extra, spans)
