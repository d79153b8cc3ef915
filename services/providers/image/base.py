"""What an image adapter is: a protocol spoken by one kind of provider, as functions over values.

As in the text service, an adapter does no I/O: it says what to send, reads bytes into events, and names errors.
`services.image.generation` sends, waits, splits a request into calls and fetches what an answer only links to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from moa.image.v1.image_pb2 import ImageEvent
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common.errors import MoaError
from services.common.estimate import ReportedUsage
from services.providers.credentials import Authority
from services.providers.http.client import Outgoing
from services.providers.image.picture import Picture
from services.providers.listing import KEPT_S, Lister
from services.providers.options import NoOptions


@dataclass(frozen=True)
class Call:
    """One call of the provider: several make up a request for more images than a call gives."""

    outgoing: Outgoing
    count: int
    """How many images it asks for."""
    returns: bool = False
    """Whether the answer's fields of the vendor's own are given back, to callers who speak its API."""


@dataclass(frozen=True)
class Link:
    """An image that the answer only links to. It is fetched without credentials."""

    url: str
    index: int
    """Which image of the call."""
    revised_prompt: str = ""
    seed: object = None


class Reader(Protocol):
    """Turns one answer's bytes into events. Indices count from 0 within the call."""

    failure: MoaError | None
    """How the answer failed, once it has: the events given before and with it stand."""
    reported: ReportedUsage | None
    """What the provider told of the tokens; None where it told nothing. Images are counted by who delivers them."""

    def feed(self, data: bytes) -> list[ImageEvent | Picture | Link]:
        """Return the events that `data` completes, up to a failure."""
        ...

    def end(self) -> list[ImageEvent | Picture | Link]:
        """Return the closing events. An answer that is not whole becomes a `failure`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One protocol. `name` is what catalogue rows write as `adapter`."""

    name: str
    calls_from: Callable[[GenerateImageRequest, Model, Provider], list[Call]]
    """Return the HTTP requests. Raises Unsupported, with the field's name, for what cannot be said."""
    reader: Callable[[Call, Model, Mapping[str, str]], Reader]
    """Make the reader of an answer, given its headers."""
    error_from: Callable[[int, Mapping[str, str], bytes], MoaError]
    """Return the error behind a refusal: its HTTP status, headers and body."""
    authority: Callable[[Provider, Mapping[str, str]], Authority]
    """Return what signs requests, from the environment. Raises ProviderNotConfigured."""
    request_id_header: str
    """The answer's header that holds the provider's id of the request, in lower case."""
    ignored: Callable[[GenerateImageRequest, Model, Provider], Sequence[str]] = lambda request, model, provider: (
        request.vendor.names
    )
    """Return the caller's names of the fields that only a vendor knows and that have no effect here."""
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
