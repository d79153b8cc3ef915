"""Bedrock's embedding models: Amazon's Titan, a text a call, and Cohere's, up to 96, by InvokeModel.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
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
from services.common.errors import UpstreamBroken
from services.providers.aws import access as aws_access
from services.providers.aws import listing
from services.providers.aws.access import Options
from services.providers.aws.errors import error_from
from services.providers.counts import Spelling, read_usage
from services.providers.embedding.base import Adapter, Call, EmbeddedTexts, Vector, calls_of
from services.providers.http.client import Outgoing

COHERE_BATCH: Final = 96
_INPUT_TYPES: Final[Mapping[int, str]] = {
    pb.PURPOSE_QUERY: "search_query",
    pb.PURPOSE_QUESTION_ANSWERING: "search_query",
    pb.PURPOSE_FACT_VERIFICATION: "search_query",
    pb.PURPOSE_CODE_QUERY: "search_query",
    pb.PURPOSE_CLASSIFICATION: "classification",
    pb.PURPOSE_CLUSTERING: "clustering",
}
"""Cohere's words, which must be given; those of documents are the default."""
_TOKENS_HEADER: Final = "x-amzn-bedrock-input-token-count"
_COUNTS: Final = Spelling(prompt=(("tokens",),), completion=())
_encode: Final = msgspec.json.Encoder().encode


class _ByType(Struct):
    floats: list[list[float]] = msgspec.field(name="float")


class _Answer(Struct, rename="camel"):
    embedding: list[float] | None = None
    """Titan's."""
    embeddings: _ByType | list[list[float]] | None = None
    """Cohere's, by type where types were asked for."""
    input_text_token_count: msgspec.Raw = msgspec.Raw(b"null")
    """Titan's."""


_decode: Final = msgspec.json.Decoder(_Answer).decode


def calls_from(request: pb.EmbedTextsRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests, in the words of the vendor that the model's name names."""
    url = URL(f"{provider.base_url.rstrip('/')}/model/{quote(model.name, safe='')}/invoke", encoded=True)
    if ".embed-" in model.name:  # cohere.embed-…, also behind a region's or an inference profile's prefix

        def cohere(part: Sequence[str]) -> Outgoing:
            body: dict[str, Any] = {
                "texts": list(part),
                "input_type": _INPUT_TYPES.get(request.purpose, "search_document"),
                "truncate": "END" if request.truncate else "NONE",
                "embedding_types": ["float"],
            }
            if request.HasField("dimensions"):
                body["output_dimension"] = request.dimensions
            return Outgoing(url, _encode(body), {})

        return calls_of(request.texts, model, COHERE_BATCH, cohere)

    def titan(part: Sequence[str]) -> Outgoing:
        body: dict[str, Any] = {"inputText": part[0]}
        if request.HasField("dimensions"):
            body["dimensions"] = request.dimensions
        return Outgoing(url, _encode(body), {})

    return calls_of(request.texts, model, 1, titan)


def answer_from(body: bytes, headers: Mapping[str, str]) -> EmbeddedTexts:
    """Read the vectors; what was read stands in a header, of Titan in the body too."""
    answer = _decode(body)
    vectors: Sequence[Vector]
    if isinstance(answer.embeddings, _ByType):
        vectors = answer.embeddings.floats
    elif answer.embeddings is not None:
        vectors = answer.embeddings
    elif answer.embedding is not None:
        vectors = [answer.embedding]
    else:
        raise UpstreamBroken("the provider sent no vector")
    count = headers.get(_TOKENS_HEADER, "").encode() or bytes(answer.input_text_token_count)
    if count == b"null":
        return EmbeddedTexts(vectors, None)
    return EmbeddedTexts(vectors, read_usage(msgspec.Raw(b'{"tokens":' + count + b"}"), _COUNTS))


ADAPTER = Adapter(
    name="bedrock",
    options=Options,
    calls_from=calls_from,
    answer_from=answer_from,
    error_from=error_from,
    authority=aws_access.bedrock_authority,
    request_id_header="x-amzn-requestid",
    list_models=listing.list_models,
    check_request=aws_access.check_of("EMBEDDING"),
)
