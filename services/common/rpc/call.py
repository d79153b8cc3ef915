"""What is known of the call that is being served: its id, its caller, and what its log line will say."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from services.common.large_turn import LargeTurns

REQUEST_ID_KEY = "x-request-id"
SERVICE_KEY = "x-moa-service"
ACCOUNT_KEY = "x-moa-account"
RESERVATION_KEY = "x-moa-reservation"
LABELS_KEY = "x-moa-labels"
"""What a request is called in reports (`services.quota_client.labels`), for a backend that settles it."""
PROMPT_KEY = "x-moa-prompt-bound"
"""How many tokens the prompt has at most: what a caller who leaves owes for it where nobody counted."""
BODY_BYTES_KEY = "x-moa-body-bytes"
"""How many bytes a caller's request has, as the edge counted them: it is told before the request is received."""
PRIORITY_KEY = "x-moa-priority"
"""How much of a contended engine the call gets: low, normal or high."""
RESUME_KEY = "x-moa-resume"
"""Names an order of images: asked again under the same name, an unfinished one goes on where it was."""


Metadata = Iterable[tuple[str, str | bytes]]


class Call:
    """One call being served. `fields` become part of its log line."""

    __slots__ = (
        "account",
        "address",
        "body_bytes",
        "broken",
        "charged",
        "fields",
        "key",
        "metadata",
        "method",
        "request_bytes",
        "request_id",
        "room",
        "turns",
        "wrote",
    )

    def __init__(self, method: str, request_id: str, address: str = "") -> None:
        self.account = ""
        """Whose it is, as far as whoever calls said, or whoever received a large request found out."""
        self.body_bytes = 0
        """How large the request is, where that is known before it is received."""
        self.request_bytes = 0
        """How large the request is, as received, with what was fetched for it; 0: nobody has counted."""
        self.method = method
        self.address = address
        """Where the caller is, as the edge saw it; empty between services."""
        self.request_id = request_id
        self.fields: dict[str, Any] = {}
        self.key = ""
        """What the handler takes for the caller's key; empty until it has read it."""
        self.metadata: Metadata | None = None
        """What its caller sent beside the request; None: nobody has read it."""
        self.room: AsyncExitStack | None = None
        """What a large request takes of this process's memory."""
        self.turns: LargeTurns | None = None
        """Of large requests; None: this is none that was received."""
        self.charged = False
        """Whether anything was charged for it."""
        self.broken = False
        """Whether its stream ended with an error."""
        self.wrote = False
        """Whether a first message was sent: from then on an error must be an event of the stream."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a block that waits for the turn of a large request; any other waits for nothing."""
        return nullcontext() if self.turns is None else self.turns.turn()

    async def let_go(self) -> None:
        """Release the room that the request took."""
        room, self.room = self.room, None
        if room is not None:
            await room.aclose()


_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)

_NONE = Call("", "")
_CURRENT: ContextVar[Call] = ContextVar("moa_call", default=_NONE)


def fetched(size: int) -> None:
    """Count bytes that became part of the current call's request after it was received."""
    call = _CURRENT.get()
    if call is not _NONE:
        call.request_bytes += size


def begin(method: str, request_id: str, address: str = "") -> Call:
    """Make the call that is served from here on, in this task.

    An id that is not 1 to 128 visible ASCII characters is replaced by a new one: it is repeated in logs and answers.
    """
    call = Call(method, request_id if _REQUEST_ID.fullmatch(request_id) else os.urandom(16).hex(), address)
    _CURRENT.set(call)
    return call


def current() -> Call:
    """Return the call that is being served."""
    return _CURRENT.get()


def metadata_of(context: Any) -> Metadata:
    """Return what the caller sent beside the request: each reading of a context makes all of it anew."""
    call = _CURRENT.get()
    return call.metadata if call.metadata is not None else context.invocation_metadata() or ()


def address_in(metadata: Mapping[str, str | bytes]) -> str:
    """Return the caller's address as the edge wrote it: it overwrites the first header, and appends to the second."""
    forwarded = metadata.get("x-envoy-external-address") or metadata.get("x-forwarded-for") or ""
    text = forwarded if isinstance(forwarded, str) else ""
    return _network(text.rpartition(",")[2].strip()[:64])


@lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """Return what limits by address count: an IPv6 caller has 64 bits of addresses to itself."""
    try:
        result = ipaddress.ip_address(address)
    except ValueError:
        return address
    if result.version == 4:
        return address
    mapped = result.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((int(result), 64), strict=False))
