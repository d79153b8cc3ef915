"""OpenAI's embeddings: `POST /v1/embeddings` (platform.openai.com/docs/api-reference/embeddings)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from google.api import httpbody_pb2
from msgspec import Meta, Struct

from moa.embedding.v1.embedding_service_pb2 import Embedding, EmbedTextsRequest, EmbedTextsResponse
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import InvalidField
from services.common.rpc.call import metadata_of
from services.router.dialects import reply, vectors
from services.router.dialects.methods import MethodSet
from services.router.dialects.openai import answers
from services.router.dialects.openai.deployments import deployment
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.reply import encode
from services.router.dialects.unknown import is_strict, parse_liberally, refuse
from services.router.operations.embedding import EmbeddingCall, embedded
from services.router.serving import note

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


class EmbeddingsServicer:
    """Turns texts into vectors. For why its handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._caller = parts.operations, parts.reading, parts.begin

    async def CreateEmbedding(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Turn texts into vectors."""
        caller = self._caller(context)
        given = Body(request, model=deployment(context))
        del request
        strict = is_strict(metadata_of(context))
        wanted, base64, ignored = await self._reading(read, given, strict=strict)
        async with await self._operations.begin(EmbeddingCall(wanted), caller) as answer:
            note(answer, caller)
            found = await embedded(answer)
            await context.send_initial_metadata(reply.headers(answer, cost=answer.usage, ignored=ignored))
            async for piece in written(found, answer.model.id, base64=base64):
                await context.write(reply.json_piece(data=piece))


METHODS: Final = MethodSet(
    servicer=EmbeddingsServicer,
    methods={"CreateEmbedding": Method(reads=EmbeddingBody, answers=answers.OpenAIEmbeddings)},
    makes=("embedding",),
    fields={"texts": "input", "token_lists": "input"},
)
