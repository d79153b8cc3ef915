"""What an embedding adapter is: a protocol spoken by one kind of provider, as functions over values.

As for text, an adapter does no I/O: it says what to send, reads vectors out of answers, and names errors.
`services.text.embedding` sends, waits and puts the calls' answers together.
"""

from __future__ import annotations

import array
import binascii
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec import Struct

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from services.catalogue import Model, Provider
from services.common.errors import MoaError, UpstreamBroken
from services.common.estimate import ReportedUsage, tokens_of
from services.providers.credentials import Authority
from services.providers.http.client import Outgoing
from services.providers.listing import KEPT_S, Lister
from services.providers.options import NoOptions

Vector = Sequence[float]

SPECIAL_TOKENS: Final = 4
"""At most so many are put around a text."""


class Call(NamedTuple):
    """One call of the provider: several make up a request for more texts than a call takes."""

    outgoing: Outgoing
    texts: int
    """How many it holds."""
    most: int
    """How many tokens they have at most."""
    guess: int
    """How many they have, about."""


class EmbeddedTexts(NamedTuple):
    """What a call gave."""

    vectors: Sequence[Vector]
    """One a text, in order."""
    reported: ReportedUsage | None
    """What the provider reported; None where it reported nothing."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One protocol. `name` is what catalogue rows write as `adapter`."""

    name: str
    calls_from: Callable[[EmbedTextsRequest, Model, Provider], list[Call]]
    """Return the HTTP requests. Raises Unsupported, with the field's name, for what cannot be said."""
    answer_from: Callable[[bytes, Mapping[str, str]], EmbeddedTexts]
    """Read a good answer's body and headers. Raises UpstreamBroken, or what `msgspec` does, for one that is none."""
    error_from: Callable[[int, Mapping[str, str], bytes], MoaError]
    """Return the error behind a refusal: its HTTP status, headers and body."""
    authority: Callable[[Provider, Mapping[str, str]], Authority]
    """Return what signs requests, from the environment. Raises ProviderNotConfigured."""
    request_id_header: str
    """The answer's header that holds the provider's id of the request, in lower case."""
    options: type[Struct] = NoOptions
    """What a row's `options` may say."""
    list_models: Lister | None = None
    """Begin to list a provider's models; None where the protocol lists none."""
    list_s: float = KEPT_S
    """How long a list is good."""
    check_request: Callable[[Provider], Outgoing] | None = None
    """Return the cheapest real request that proves address and credentials."""
    check_by_refusal: bool = False
    """Whether that request is wrong on purpose: refused for what it says, it shows that the credentials are good."""
    caller_authority: Callable[[str], Authority] | None = None
    """Return what signs requests with a caller's own key; None where callers bring none."""


def calls_of(
    texts: Sequence[str], model: Model, most: int, outgoing: Callable[[Sequence[str]], Outgoing]
) -> list[Call]:
    """Return the calls for texts, of which one call takes `most`."""
    return [
        Call(
            outgoing(part),
            len(part),
            bound_of((len(text.encode()) for text in part), model),
            sum(map(tokens_of, part)),
        )
        for part in (texts[at : at + most] for at in range(0, len(texts), most))
    ]


def bound_of(sizes: Iterable[int], model: Model) -> int:
    """Return how many tokens texts of so many bytes have at most: no more than the model reads of one."""
    most = model.context_tokens
    return sum(min(size + SPECIAL_TOKENS, most or size + SPECIAL_TOKENS) for size in sizes)


def packed(text: str) -> Vector:
    """Return a vector that is written as base64 of little-endian floats of 32 bits. Raises UpstreamBroken."""
    vector = array.array("f")
    try:
        vector.frombytes(binascii.a2b_base64(text))
    except ValueError:
        raise UpstreamBroken("the provider sent a vector that cannot be read") from None
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def checked(vectors: Sequence[Vector], count: int, dimensions: int | None) -> Sequence[Vector]:
    """Return the vectors of a call. Raises UpstreamBroken where there are not as many as texts, or as long as asked."""
    if len(vectors) != count:
        raise UpstreamBroken(f"the provider sent {len(vectors)} vectors for {count} texts")
    size = dimensions or len(vectors[0])
    for vector in vectors:
        if not vector or len(vector) != size:
            raise UpstreamBroken(f"the provider sent a vector of {len(vector)} numbers, not of {size}")
        if not math.isfinite(sum(vector)):
            raise UpstreamBroken("the provider sent a vector with a value that is not a finite number")
    return vectors
