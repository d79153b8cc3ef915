"""Google's embeddings: `:embedContent` and `:batchEmbedContents` (ai.google.dev/api/embeddings)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from moa.embedding.v1 import embedding_service_pb2 as pb
from moa.router.v1 import google_service_pb2
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import InvalidField, Unsupported
from services.common.rpc.call import metadata_of
from services.router.dialects import reply, vectors
from services.router.dialects.google import answers, bodies, listing
from services.router.dialects.google.spelling import parse_either, respelled
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.reply import encode
from services.router.dialects.unknown import is_strict, parse_liberally, refuse
from services.router.operations.embedding import EmbeddingCall, embedded
from services.router.serving import note

PURPOSES: Final = {
    "TASK_TYPE_UNSPECIFIED": pb.PURPOSE_UNSPECIFIED,
    "RETRIEVAL_QUERY": pb.PURPOSE_QUERY,
    "RETRIEVAL_DOCUMENT": pb.PURPOSE_DOCUMENT,
    "SEMANTIC_SIMILARITY": pb.PURPOSE_SIMILARITY,
    "CLASSIFICATION": pb.PURPOSE_CLASSIFICATION,
    "CLUSTERING": pb.PURPOSE_CLUSTERING,
    "QUESTION_ANSWERING": pb.PURPOSE_QUESTION_ANSWERING,
    "FACT_VERIFICATION": pb.PURPOSE_FACT_VERIFICATION,
    "CODE_RETRIEVAL_QUERY": pb.PURPOSE_CODE_QUERY,
}


class _Body(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Base: camel case on the wire."""


class EmbedBody(_Body):
    """One text, and what its vector is for."""

    content: bodies.Content
    model: str | None = None
    """The path's, again."""
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: Annotated[int, Meta(ge=1, le=65_536)] | None = None


class BatchBody(_Body):
    """Several."""

    requests: Annotated[list[EmbedBody], Meta(min_length=1)]


class Read(NamedTuple):
    """A body, read."""

    request: pb.EmbedTextsRequest
    ignored: list[str]
    """Parameters that were given and have no effect."""


_ONE: Final = msgspec.json.Decoder(EmbedBody)
_BATCH: Final = msgspec.json.Decoder(BatchBody)


def read(data: bytes, model: str, *, batch: bool, strict: bool = False) -> Read:
    """Read a body; `strict`: refuse what would have no effect. Raises Malformed, InvalidField or Unsupported."""
    decoder: Any = _BATCH if batch else _ONE
    body, ignored, _ = parse_liberally(data, decoder, parse=parse_either, respell=respelled)
    refuse(ignored, strict=strict)
    given: list[EmbedBody] = body.requests if batch else [body]
    first = given[0]
    # Google cuts what is too long, and its clients know no refusal.
    request = pb.EmbedTextsRequest(model=model, truncate=True, dimensions=first.output_dimensionality)
    request.purpose = _purpose_of(first)
    request.title = first.title or ""
    for index, each in enumerate(given):
        where = f"requests[{index}]." if batch else ""
        if (each.task_type, each.title, each.output_dimensionality) != (
            first.task_type,
            first.title,
            first.output_dimensionality,
        ):
            raise Unsupported(
                "requests of one batch must have the same taskType, title and outputDimensionality",
                param=f"requests[{index}]",
            )
        request.texts.append(_text_of(each, where))
    return Read(request, ignored)


def _purpose_of(body: EmbedBody) -> pb.Purpose.ValueType:
    word = body.task_type or "TASK_TYPE_UNSPECIFIED"
    if word not in PURPOSES:
        raise InvalidField(f"taskType must be one of {', '.join(PURPOSES)}", param="taskType")
    return PURPOSES[word]


def _text_of(body: EmbedBody, where: str) -> str:
    """Return the text of a content, all of its parts."""
    texts: list[str] = []
    for index, part in enumerate(body.content.parts or ()):
        if part.text is None:
            raise Unsupported("only texts are embedded", param=f"{where}content.parts[{index}]")
        texts.append(part.text)
    text = "".join(texts)
    if not text:
        raise InvalidField("a text must not be empty", param=f"{where}content.parts")
    return text


def written(answer: pb.EmbedTextsResponse, *, batch: bool) -> AsyncIterator[bytes]:
    """Return the answer's JSON, in pieces."""
    usage = b',"usageMetadata":' + encode({"promptTokenCount": answer.usage.prompt_tokens}) + b"}"

    def item(index: int, embedding: pb.Embedding) -> dict[str, Any]:
        return {"values": list(embedding.values)}

    if batch:
        return vectors.pieces(b'{"embeddings":[', answer.embeddings, item, b"]" + usage)
    return vectors.pieces(b'{"embedding":', answer.embeddings, item, usage)


class EmbeddingsServicer:
    """Turns texts into vectors. For why its handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._caller = parts.operations, parts.reading, parts.begin

    async def EmbedContent(self, request: google_service_pb2.GoogleServiceRequest, context: Any) -> None:
        """Turn a text into a vector."""
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        await self._embed(name, given, context, batch=False)

    async def BatchEmbedContents(self, request: google_service_pb2.GoogleServiceRequest, context: Any) -> None:
        """Turn texts into vectors."""
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        await self._embed(name, given, context, batch=True)

    async def _embed(self, name: str, given: Body, context: Any, *, batch: bool) -> None:
        caller = self._caller(context)
        strict = is_strict(metadata_of(context))
        wanted, ignored = await self._reading(read, given, name, batch=batch, strict=strict)
        async with await self._operations.begin(EmbeddingCall(wanted), caller) as answer:
            note(answer, caller)
            found = await embedded(answer)
            await context.send_initial_metadata(reply.headers(answer, cost=answer.usage, ignored=ignored))
            async for piece in written(found, batch=batch):
                await context.write(reply.json_piece(data=piece))


METHODS: Final = MethodSet(
    servicer=EmbeddingsServicer,
    methods={
        "EmbedContent": Method(reads=EmbedBody, answers=answers.EmbedContentResponse),
        "BatchEmbedContents": Method(reads=BatchBody, answers=answers.BatchEmbedContentsResponse),
    },
    makes=("embedding",),
    fields={"texts": "content", "dimensions": "outputDimensionality"},
)
