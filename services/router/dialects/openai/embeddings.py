"""OpenAI's embeddings: `POST /v1/embeddings` (platform.openai.com/docs/api-reference/embeddings)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from moa.embedding.v1.embedding_service_pb2 import Embedding, EmbedTextsRequest, EmbedTextsResponse
from services.common.errors import InvalidField
from services.router.dialects import vectors
from services.router.dialects.reply import encode
from services.router.dialects.unknown import parse_liberally, refuse

Token = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class EmbeddingBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | Annotated[list[str | Token | list[Token]], Meta(min_length=1, max_length=8_192)]
    """A text, texts, the tokens of a text, or those of texts."""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    user: str | None = None


class Read(NamedTuple):
    """A body, read."""

    request: EmbedTextsRequest
    base64: bool
    """Whether vectors are answered in base64."""
    ignored: list[str]
    """Parameters that were given and have no effect."""


_DECODER = msgspec.json.Decoder(EmbeddingBody)


def read(data: bytes, *, strict: bool = False) -> Read:
    """Read a body; `strict`: refuse what would have no effect. Raises Malformed or InvalidField."""
    body, ignored, _ = parse_liberally(data, _DECODER)
    refuse(ignored, strict=strict)
    request = EmbedTextsRequest(model=body.model, dimensions=body.dimensions, user=body.user or "")
    given: list[Any] = [body.input] if isinstance(body.input, str) else body.input
    kind = type(given[0])
    if any(type(each) is not kind for each in given):
        raise InvalidField("input: texts, tokens and lists of tokens do not mix", param="input")
    if kind is str:
        request.texts.extend(given)
    elif kind is int:
        request.token_lists.add(tokens=given)
    else:
        for tokens in given:
            request.token_lists.add(tokens=tokens)
    return Read(request, body.encoding_format == "base64", ignored)


def written(answer: EmbedTextsResponse, model: str, *, base64: bool) -> AsyncIterator[bytes]:
    """Return the answer's JSON, in pieces."""
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.prompt_tokens}
    tail = b'],"model":' + encode(model) + b',"usage":' + encode(usage) + b"}"

    def item(index: int, embedding: Embedding) -> dict[str, Any]:
        numbers = vectors.packed(embedding) if base64 else list(embedding.values)
        return {"object": "embedding", "index": index, "embedding": numbers}

    return vectors.pieces(b'{"object":"list","data":[', answer.embeddings, item, tail)
