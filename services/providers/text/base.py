"""What an adapter is: a protocol spoken by one kind of provider, as functions over values.

An adapter does no I/O. It says what to send (`request_from`), makes the reader that turns the bytes of one answer into
events, names the error behind a refusal (`error_from`), and says how requests are signed (`authority`). Sending,
waiting, timeouts, cancellation and retries are `services.text.generation`, once for all of them. The same reader reads
streamed and whole answers, so that every adapter can be tested by splitting its bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from moa.text.v1.text_pb2 import TextEvent
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import MoaError
from services.common.metering import TextMeter
from services.providers.credentials import Authority
from services.providers.http.client import Outgoing
from services.providers.listing import KEPT_S, Lister
from services.providers.options import NoOptions
from services.providers.text.batches import BatchApi
from services.providers.text.ignored import Ignored


class Reader(Protocol):
    """Turns one answer's bytes into events. Made for one answer, whose state it holds."""

    done: bool
    """Whether the answer is complete: `finished` was given and nothing more needs to be read."""
    ending: bool
    """Whether every candidate has finished and only the provider's closing words (usage, end mark) are awaited."""
    cut: bool
    """Whether it is complete because the provider gave more than was asked for: what follows is not read."""
    upstream_id: str
    """The provider's own id of the answer; empty until it is known."""
    failure: MoaError | None
    """How the answer failed, once it has: the events given before and with it stand, nothing more is read."""

    @property
    def meter(self) -> TextMeter:
        """What meters the answer's events, and holds what the provider told of the usage."""
        ...

    def feed(self, data: bytes) -> list[TextEvent]:
        """Return the events that `data` completes, up to a failure."""
        ...

    def end(self) -> list[TextEvent]:
        """Return the closing events, after the provider's last byte or when its closing words do not come.

        An answer that is not whole becomes an UpstreamBroken `failure`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One protocol. `name` is what catalogue rows write as `adapter`."""

    name: str
    request_from: Callable[[GenerateTextRequest, Model, Provider, Ignored], Outgoing]
    """Return the HTTP request for a chat, and note what has no effect. Raises Unsupported, with the field's name, for
    what changes the answer's meaning and cannot be said."""
    reader: Callable[[GenerateTextRequest, Model, Mapping[str, str]], Reader]
    """Make the reader of an answer, given the answer's headers (names in lower case)."""
    error_from: Callable[[int, Mapping[str, str], bytes], MoaError]
    """Return the error behind a refusal: its HTTP status, headers and body."""
    authority: Callable[[Provider, Mapping[str, str]], Authority]
    """Return what signs requests, from the environment. Raises ProviderNotConfigured."""
    request_id_header: str
    """The answer's header that holds the provider's id of the request, in lower case."""
    count_request_from: Callable[[CountTokensRequest, Model, Provider], Outgoing] | None = None
    """Return the HTTP request that counts a prompt; None where the protocol has none."""
    count_from: Callable[[bytes], int] | None = None
    """Read the count out of the answer."""
    vendor: str = ""
    """Whose own fields the protocol takes and gives (`moa.common.v1.VendorFields`); empty: nobody's."""
    own_kinds: Callable[[Model], str] | None = None
    """Return whose tools and parts of kinds that no contract types a model takes; None: `vendor`'s."""
    custom_tools: bool = False
    """Whether it has tools that take free text (`Tool.custom`)."""
    caches: bool = False
    """Whether it is told what of a prompt is worth keeping (`Part.cache`)."""
    chooses: bool = False
    """Whether it holds an answer to one of several words (`ResponseFormat.KIND_CHOICE`)."""
    options: type[Struct] = NoOptions
    """What a row's `options` may say."""
    batches: BatchApi | None = None
    """How it is asked for many answers within a day; None where the protocol has none."""
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
