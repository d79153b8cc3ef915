"""A conversation as instructions and turns of blocks, user and assistant by turns: what Messages and Converse take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from moa.common.v1.media_pb2 import FileInput
from moa.text.v1.text_pb2 import Message, Part, ReasoningPart, Role
from services.common.errors import InvalidField
from services.providers.anthropic.thinking import is_provable
from services.providers.text import media
from services.providers.text.jsontext import arguments_given_back
from services.providers.text.names import call_id, tool_name

Json = dict[str, Any]

_NO_RESULT: Final = "(no output)"
"""What a tool's blank result is told as: these protocols take no blank text."""
NO_TOOLS: Final = "Do not call tools in this turn. Answer in text."


class Spelling(Protocol):
    """How a protocol writes blocks. One belongs to one request: it counts the marks that it has put."""

    def text(self, text: str) -> Json:
        """Return a text, under the key `text`."""

    def image(self, data: bytes, mime: str) -> Json:
        """Return a picture."""

    def call(self, call_id: str, name: str, arguments: msgspec.Raw) -> Json:
        """Return a call of a tool."""

    def result(self, call_id: str, text: str, *, is_error: bool) -> Json:
        """Return what a tool gave."""

    def reasoning(self, part: ReasoningPart) -> Json:
        """Return reasoning with its signature, or what only its model can read."""

    def file(self, file: FileInput, where: str) -> Json:
        """Return a document. Raises Unsupported for what is none."""

    def own(self, part: Part, where: str) -> Json:
        """Return a part of a kind that only the vendor knows. Raises InvalidField."""

    def carry(self, block: Json, part: Part, where: str) -> None:
        """Put what the vendor's API says of a part beside that into its block."""

    def mark(self, blocks: list[Json], wanted: bool) -> None:
        """Mark, where it is wanted, that a prompt up to here is worth keeping."""


def prompt_from(messages: Sequence[Message], spelling: Spelling) -> tuple[list[Json], list[Json]]:
    """Return instructions and turns. Raises InvalidField for parts that do not belong where they are."""
    system: list[Json] = []
    turns: list[Json] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == Role.ROLE_SYSTEM:
            texts = [_text_of(part, where) for part in message.parts]
            if turns:
                # Instructions stand before the conversation only; later ones are told in their place.
                blocks = [spelling.text(f"<system>\n{text}\n</system>") for text in texts if text.strip()]
            else:
                for number, (part, text) in enumerate(zip(message.parts, texts, strict=True)):
                    if text.strip():
                        system.append(spelling.text(text))
                    spelling.mark(system, part.cache)
                    if text.strip() and part.HasField("vendor"):
                        spelling.carry(system[-1], part, f"{where}.parts[{number}]")
                continue
        else:
            blocks = _blocks_from(message, where, spelling)
        if not blocks:
            continue  # no blank text is taken, and an earlier answer may have been blank
        role = "assistant" if message.role == Role.ROLE_ASSISTANT else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        # A turn is wanted, and some clients send instructions alone.
        turns, system = ([{"role": "user", "content": system}] if system else []), []
    if not turns:
        raise InvalidField("a message needs content", param="messages")
    return system, turns


def _blocks_from(message: Message, where: str, spelling: Spelling) -> list[Json]:
    """Return a turn's content, without what is refused: blank text, and reasoning that nobody has signed."""
    blocks: list[Json] = []
    for index, part in enumerate(_joined(message.parts)):
        if part.HasField("text") and not part.text.strip():
            continue
        if part.HasField("reasoning") and not is_provable(part):
            continue
        place = f"{where}.parts[{index}]"
        block = _block_from(part, message.role, place, spelling)
        blocks.append(block)
        spelling.mark(blocks, part.cache)
        if part.HasField("vendor"):
            spelling.carry(block, part, place)
    if message.name and message.role == Role.ROLE_USER and blocks and "text" in blocks[0]:
        # Participants have no names here.
        blocks[0]["text"] = f"{message.name}: {blocks[0]['text']}"
    return blocks


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Return a turn's parts, reasoning that is given back in pieces as one: its signature may come as the last."""
    made: list[Part] = []
    for part in parts:
        last = made[-1].reasoning if made else None
        if last is not None and last.text and not last.signature and part.HasField("reasoning"):
            more = part.reasoning
            whole = ReasoningPart(text=last.text + more.text, signature=more.signature, signer=more.signer)
            made[-1] = Part(reasoning=whole)
        else:
            made.append(part)
    return made


def _text_of(part: Part, where: str) -> str:
    if not part.HasField("text"):
        raise InvalidField("system instructions may hold only text", param=where)
    return part.text


def _block_from(part: Part, role: Role.ValueType, where: str, spelling: Spelling) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text" and role != Role.ROLE_TOOL:
        return spelling.text(part.text)
    if kind == "image" and role == Role.ROLE_USER:
        return spelling.image(*media.checked(part.image, f"{where}.image"))
    if kind == "tool_call" and role == Role.ROLE_ASSISTANT:
        call = part.tool_call
        return spelling.call(call_id(call.id), tool_name(call.name), arguments_given_back(call.arguments_json))
    if kind == "tool_result" and role == Role.ROLE_TOOL:
        result = part.tool_result
        text = result.content if result.content.strip() else _NO_RESULT
        return spelling.result(call_id(result.tool_call_id), text, is_error=result.is_error)
    if kind == "reasoning" and role == Role.ROLE_ASSISTANT:
        return spelling.reasoning(part.reasoning)
    if kind == "file" and role == Role.ROLE_USER:
        return spelling.file(part.file, f"{where}.file")
    if kind is None and part.HasField("vendor"):
        return spelling.own(part, where)
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)
