"""A provider's batch API: requests that are answered within a day, for less.

As with lists (`services.providers.listing`), an adapter does no I/O: it yields the requests, is sent their answers'
bodies, and returns what they say. Sending and bounds are `services.text.batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec

from services.catalogue import Provider
from services.common.errors import MoaError, UpstreamBroken
from services.providers.http.client import Outgoing

T = TypeVar("T")

Steps = Generator[Outgoing, bytes, T]
"""Yields what is asked, is sent each answer's body, or has its refusal raised (MoaError)."""


class Line(NamedTuple):
    """A request of a batch."""

    custom_id: str
    outgoing: Outgoing
    """As it would be asked alone."""


class Sought(NamedTuple):
    """A batch that may have been made."""

    name: str
    """What it is called."""
    since: int
    """When it was made at the earliest, in seconds since 1970."""
    requests: int
    """How many requests it has at most."""
    known: frozenset[str]
    """Batches that are others, by the provider's ids."""


class Found(NamedTuple):
    """What was found of one."""

    batch_id: str = ""
    """The provider's id; empty: there is none."""
    undecided: bool = False
    """Whether that cannot be told yet."""


class Result(NamedTuple):
    """What became of a request: an answer, an error, or neither."""

    custom_id: str
    body: bytes = b""
    """The answer, as it would have come alone."""
    error: MoaError | None = None
    expired: bool = False
    """Of one without both: whether its time was over; else it was cancelled."""


class Results(NamedTuple):
    """The results of a batch that has ended."""

    asked: Sequence[Outgoing] = ()
    """What is asked for them: answers of a result a line."""
    inline: Sequence[Result] = ()
    """Those that the batch itself holds."""


def _no_lines(line: bytes) -> Result:
    raise UpstreamBroken("the provider's results are no lines")


@dataclass(frozen=True, kw_only=True)
class BatchApi:
    """A batch API."""

    create: Callable[[Provider, str, Sequence[Line]], Steps[str]]
    """Make a batch of a name; return the provider's id."""
    find: Callable[[Provider, Sought], Steps[Found]]
    """Find a batch that may have been made."""
    has_ended: Callable[[Provider, str], Steps[bool]]
    """Tell whether a batch has ended."""
    cancel: Callable[[Provider, str], Steps[None]]
    """Ask for a batch's end."""
    results: Callable[[Provider, str], Steps[Results]]
    """Return the results of a batch that has ended."""
    result_from: Callable[[bytes], Result] = _no_lines
    """Read a line of what is asked for results. Raises UpstreamBroken."""


def read(body: bytes, shape: type[T]) -> T:
    """Return what a provider says of its batches. Raises UpstreamBroken where it cannot be read."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamBroken("what the provider says of its batch cannot be read") from error
