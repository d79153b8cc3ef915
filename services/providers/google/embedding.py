"""Gemini's embeddings: `batchEmbedContents`, up to a hundred texts a call.

https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from yarl import URL

from moa.embedding.v1 import embedding_service_pb2 as pb
from services.catalogue import Model, Provider
from services.providers.counts import Spelling, read_usage
from services.providers.embedding.base import Adapter, Call, EmbeddedTexts, calls_of
from services.providers.google import listing
from services.providers.google.access import authority, caller_authority, check_request
from services.providers.google.errors import error_from
from services.providers.http.client import Outgoing

BATCH: Final = 100
"""Texts that one call takes."""
TASKS: Final[Mapping[int, str]] = {
    pb.PURPOSE_QUERY: "RETRIEVAL_QUERY",
    pb.PURPOSE_DOCUMENT: "RETRIEVAL_DOCUMENT",
    pb.PURPOSE_SIMILARITY: "SEMANTIC_SIMILARITY",
    pb.PURPOSE_CLASSIFICATION: "CLASSIFICATION",
    pb.PURPOSE_CLUSTERING: "CLUSTERING",
    pb.PURPOSE_QUESTION_ANSWERING: "QUESTION_ANSWERING",
    pb.PURPOSE_FACT_VERIFICATION: "FACT_VERIFICATION",
    pb.PURPOSE_CODE_QUERY: "CODE_RETRIEVAL_QUERY",
}
_COUNTS: Final = Spelling(prompt=(("promptTokenCount",),), completion=())
_encode: Final = msgspec.json.Encoder().encode


class _Values(Struct):
    values: list[float] = []


class _Answer(Struct, rename="camel"):
    embeddings: list[_Values]
    usage_metadata: msgspec.Raw = msgspec.Raw(b"")


_decode: Final = msgspec.json.Decoder(_Answer).decode


def calls_from(request: pb.EmbedTextsRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests. Texts beyond the model's longest are cut by Google, which does not say so."""
    url = URL(f"{provider.base_url.rstrip('/')}/models/{quote(model.name, safe='')}:batchEmbedContents")
    more: dict[str, Any] = {"model": f"models/{model.name}"}
    if request.purpose in TASKS:
        more["taskType"] = TASKS[request.purpose]
    if request.title and request.purpose == pb.PURPOSE_DOCUMENT:
        more["title"] = request.title
    if request.HasField("dimensions"):
        more["outputDimensionality"] = request.dimensions

    def outgoing(part: Sequence[str]) -> Outgoing:
        return Outgoing(url, _encode({"requests": [{**more, "content": {"parts": [{"text": t}]}} for t in part]}), {})

    return calls_of(request.texts, model, BATCH, outgoing)


def answer_from(body: bytes, headers: Mapping[str, str]) -> EmbeddedTexts:
    """Read the vectors. Most models' answers report no usage."""
    answer = _decode(body)
    return EmbeddedTexts([each.values for each in answer.embeddings], read_usage(answer.usage_metadata, _COUNTS))


ADAPTER = Adapter(
    name="gemini",
    calls_from=calls_from,
    answer_from=answer_from,
    error_from=error_from,
    authority=authority,
    request_id_header="x-goog-request-id",
    list_models=listing.list_models,
    check_request=check_request,
    caller_authority=caller_authority,
)
