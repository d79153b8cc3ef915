"""Read Google's bodies, wherever that is done: the model's name is in the path, and says what is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.common.errors import InvalidField, Unsupported
from services.router.dialects.google import bodies, carried, image_request, text_request
from services.router.dialects.google.spelling import parse_either, respelled
from services.router.dialects.reading import is_large
from services.router.dialects.unknown import parse_liberally
from services.router.domain.prompt import Prompt

_BODY = msgspec.json.Decoder(bodies.GenerateContentBody)
_COUNT = msgspec.json.Decoder(bodies.CountBody)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for."""

    ignored: list[str]
    """Parameters that were given and have no effect, as far as that is known before anybody answers."""
    text: GenerateTextRequest | None = None
    """Where the model makes text."""
    prompt: Prompt | None = None
    """Of a request for text."""
    image: GenerateImageRequest | None = None
    """Where it makes images."""


def asked(data: bytes, model: str, makes: str, *, stream: bool, strict: bool = False) -> Asked:
    """Read what is asked of a model that makes `text` or `image`; for one that is not known, check that it is a body.

    `strict`: refuse what would have no effect.

    Raises Malformed, InvalidField, Unsupported, UnsupportedMedia or TooLarge.
    """
    body, unknown, extra = parse_liberally(data, _BODY, parse=parse_either, respell=respelled)
    if body.cached_content:
        raise Unsupported("cachedContent is not supported here", param="cachedContent")
    if makes == "image":
        image = image_request.request_from(body, model, stream=stream)
        image.strict = strict
        carried.put_image(image, body, extra, unknown)
        return Asked([], image=image)
    if not makes:
        return Asked([])
    text = text_request.request_from(body, model, stream=stream, strict=strict, extra=extra, names=unknown)
    return Asked([], text=text, prompt=Prompt.of(text, whole=is_large(data)))


def counted(data: bytes, model: str) -> CountTokensRequest:
    """Read a prompt whose tokens are to be counted. Raises as `asked`."""
    body = parse_either(data, _COUNT)
    whole = body.generate_content_request
    if (whole is None) == (body.contents is None):
        raise InvalidField("give contents or generateContentRequest", param="contents")
    given = whole or body
    return CountTokensRequest(
        model=model,
        messages=text_request.messages_from(given.contents or [], given.system_instruction),
        tools=text_request.tools_from(given.tools),
    )
