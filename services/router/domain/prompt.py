"""What is told of a prompt by looking through it once, wherever that is done: of a large one, not on the loop."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from moa.common.v1 import media_pb2
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import images, limits
from services.common.errors import InvalidField, MoaError
from services.common.estimate import prompt_tokens, words_of_tool

PER_REQUEST: Final = 16
"""Tokens that a chat template puts around a conversation."""
PER_MESSAGE: Final = 8
"""Tokens that a chat template puts around one message."""
TOOLS: Final = 530
"""Tokens of the instructions that come with tools: Anthropic publishes up to 530; ours have 440 bytes."""
PER_TOOL: Final = 96
"""Tokens of the keys and spaces around a tool that is written as JSON."""
PER_CALL: Final = 64
"""Likewise around a call, or a result."""
PER_IMAGE: Final = 8
"""Tokens that a chat template puts around one image."""
PER_FILE: Final = 1024
"""Tokens of a small file: four pages of a PDF."""
FILE_BYTES: Final = 32
"""Bytes of a file that make one token, about: audio has 32 tokens a second. Beyond that, the charge grows."""
PER_LINK: Final = 16_384
"""Tokens of a file that only its provider sees: a minute of video."""
MOST_PARTS: Final = 20_000
"""How many messages, and parts of them, one request may have."""


class Prompt(msgspec.Struct, frozen=True):
    """A prompt, looked through."""

    bound: int
    """The most tokens that it can have but for its pictures' own: each stands for a byte of text at least."""
    guess: int | None
    """How many it has, about; None: nobody has looked, and few need it."""
    pictures: tuple[tuple[int, int], ...]
    """Where its pictures are: which part of which message."""
    sizes: tuple[tuple[int, int] | None, ...] | None = None
    """The width and height of each, None where they could not be read; None: nobody has looked."""
    needs: tuple[limits.Need, ...] | None = None
    """What its request asks of a model, all of whose limits it keeps; None: nobody has looked."""
    conversation: str = ""
    """What its caller says is the same for all requests of its conversation; empty: nothing."""
    files: bool = False
    """Whether it has files, which may be sound."""

    @classmethod
    def of(cls, request: GenerateTextRequest, *, whole: bool = False, conversation: str = "") -> Self:
        """Look through a prompt. Raises InvalidField where it has too many parts.

        `whole`: look through all of the request, and raise InvalidField for what is outside its limits.
        """
        # The vendors' own fields may be words of the prompt: their bytes count.
        total, count, pictures, files = PER_REQUEST, len(request.messages), [], False
        for number, message in enumerate(request.messages):
            parts = message.parts
            count += len(parts)
            if count > MOST_PARTS:
                break
            total += PER_MESSAGE
            if message.name:
                total += len(message.name)
            if message.HasField("vendor"):
                total += message.vendor.ByteSize()
            for index, part in enumerate(parts):
                if text := part.text:
                    # Nearly all parts: written out.
                    total += len(text) if text.isascii() else len(text.encode())
                elif (kind := part.WhichOneof("part")) != "text":
                    if kind == "image":
                        pictures.append((number, index))
                    files = files or kind == "file"
                    total += _part_bound(part, kind)
                if part.HasField("vendor"):
                    total += part.vendor.ByteSize()
        if count > MOST_PARTS:
            refusal = f"at most {MOST_PARTS} messages and parts of messages are taken"
            raise InvalidField(refusal, param="messages")
        if request.tools:
            total += TOOLS
        for tool in request.tools:
            total += PER_TOOL + _bytes(*words_of_tool(tool))
            if tool.HasField("vendor"):
                total += tool.vendor.ByteSize()
        form = request.response_format
        total += _bytes(form.schema_json, *form.choices)
        if request.HasField("vendor"):
            total += request.vendor.ByteSize()
        needs = tuple(limits.first_of(limits.check(request))) if whole else None
        # To look into a picture is to copy it.
        sizes = tuple(size_of(request.messages[n].parts[i].image) for n, i in pictures) if whole else None
        guess = prompt_tokens(request) if whole else None
        return cls(total, guess, tuple(pictures), sizes, needs, conversation, files)

    def guessed(self, request: GenerateTextRequest) -> int:
        """Return how many tokens the prompt of this request has, about."""
        return prompt_tokens(request) if self.guess is None else self.guess


def size_of(image: media_pb2.ImageInput) -> tuple[int, int] | None:
    """Return a picture's size from its header; None where that cannot be read, as before it is fetched."""
    try:
        info = images.inspect(image.data)
    except MoaError:
        return None
    return info.width, info.height


def _part_bound(part: text_pb2.Part, kind: str | None) -> int:
    if kind == "image":
        return PER_IMAGE  # and its own
    if kind == "file":
        return PER_FILE + (len(part.file.data) // FILE_BYTES or PER_LINK)
    if kind == "tool_call":
        return PER_CALL + _bytes(part.tool_call.name, part.tool_call.arguments_json)
    if kind == "tool_result":
        return PER_CALL + _bytes(part.tool_result.name, part.tool_result.content)
    # What is sealed may stand for more than the text beside it.
    return max(_bytes(part.reasoning.text), len(part.reasoning.signature))


def _bytes(*texts: str) -> int:
    return len("".join(texts).encode())
