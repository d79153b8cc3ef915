"""OpenAI's embeddings: OpenAI itself, and vLLM, SGLang, Ollama, llama.cpp, text-embeddings-inference and the like.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from services.catalogue import Model, Provider
from services.common.errors import UpstreamBroken
from services.providers.counts import Spelling, read_usage
from services.providers.credentials import Authority, bearers, optional_secret
from services.providers.embedding.base import Adapter, Call, EmbeddedTexts, Vector, calls_of, packed
from services.providers.http.client import Outgoing
from services.providers.openai import listing
from services.providers.openai.errors import error_from
from services.providers.openai.text.request import url_of

_COUNTS: Final = Spelling(prompt=(("prompt_tokens",),), completion=())
_encode: Final = msgspec.json.Encoder().encode


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where servers of this protocol differ: the provider's `options` in the catalogue."""

    batch: int = 256
    """How many texts a call takes; OpenAI takes 2,048."""
    base64: bool = False
    """Whether vectors are asked for in base64, a third of the bytes. OpenAI, Azure and vLLM know it."""


class _Item(Struct):
    embedding: list[float] | str
    index: int | None = None


class _Answer(Struct):
    data: list[_Item]
    usage: msgspec.Raw = msgspec.Raw(b"")


_decode: Final = msgspec.json.Decoder(_Answer).decode


def calls_from(request: EmbedTextsRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests to `/embeddings`."""
    options = msgspec.convert(provider.options, Options)
    return calls_to(url_of(provider.base_url, "/embeddings"), request, model, options, {"model": model.name})


def calls_to(
    url: Any, request: EmbedTextsRequest, model: Model, options: Options, head: Mapping[str, Any]
) -> list[Call]:
    """Return the requests to `url`, whose bodies begin with `head`."""
    more: dict[str, Any] = dict(head)
    if options.base64:
        more["encoding_format"] = "base64"
    if request.HasField("dimensions"):
        more["dimensions"] = request.dimensions
    if request.user:
        more["user"] = request.user

    def outgoing(part: Sequence[Any]) -> Outgoing:
        return Outgoing(url, _encode({**more, "input": list(part)}), {})

    if not request.token_lists:
        return calls_of(request.texts, model, options.batch, outgoing)
    lists = [list(given.tokens) for given in request.token_lists]
    parts = [lists[at : at + options.batch] for at in range(0, len(lists), options.batch)]
    return [Call(outgoing(part), len(part), count := sum(map(len, part)), count) for part in parts]


def answer_from(body: bytes, headers: Mapping[str, str]) -> EmbeddedTexts:
    """Read the vectors, each in the place of its text."""
    answer = _decode(body)
    vectors: dict[int, Vector] = {}
    for place, item in enumerate(answer.data):
        index = place if item.index is None else item.index
        vectors[index] = packed(item.embedding) if isinstance(item.embedding, str) else item.embedding
    if sorted(vectors) != list(range(len(answer.data))):
        raise UpstreamBroken("the provider sent vectors without their texts' places")
    return EmbeddedTexts([vectors[index] for index in range(len(vectors))], read_usage(answer.usage, _COUNTS))


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the bearer key, or nothing for a server that asks for none."""
    msgspec.convert(provider.options, Options)
    return bearers(optional_secret(provider, "api_key", environment))


def check_request(provider: Provider) -> Outgoing:
    """Ask for the list of models: it costs nothing and needs the key."""
    return Outgoing(url_of(provider.base_url, "/models"), b"", {}, "GET")


ADAPTER = Adapter(
    name="openai",
    options=Options,
    calls_from=calls_from,
    answer_from=answer_from,
    error_from=error_from,
    authority=authority,
    request_id_header="x-request-id",
    list_models=listing.list_models,
    check_request=check_request,
)
