"""Anthropic's Message Batches API (platform.claude.com/docs/en/api/creating-message-batches)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from services.catalogue import Provider
from services.common.errors import UpstreamBroken
from services.providers.anthropic.errors import Failure, Refused, failed
from services.providers.anthropic.text.request import url_of
from services.providers.http.client import Outgoing
from services.providers.text.batches import BatchApi, Found, Line, Result, Results, Sought, Steps, read

_BETA: Final = "anthropic-beta"
_PAGES: Final = 20
_SKEW_S: Final = 300
"""How far the provider's clock may be behind."""


class _Counts(Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class _Batch(Struct):
    id: str
    processing_status: str
    created_at: str = ""
    request_counts: _Counts = msgspec.field(default_factory=_Counts)

    @property
    def total(self) -> int:
        """How many requests it has."""
        counts = self.request_counts
        return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


class _Page(Struct):
    data: list[_Batch]
    has_more: bool = False
    last_id: str | None = None


class _Outcome(Struct):
    type: Literal["succeeded", "errored", "canceled", "expired"]
    message: Raw = Raw(b"")
    error: Refused | None = None


class _Line(Struct):
    custom_id: str
    result: _Outcome


def create(provider: Provider, name: str, lines: Sequence[Line]) -> Steps[str]:
    """Make a batch. It has no name: its requests' ids begin with it."""
    requests = [{"custom_id": line.custom_id, "params": Raw(bytes(line.outgoing.body))} for line in lines]
    betas = {beta.strip() for line in lines for beta in line.outgoing.headers.get(_BETA, "").split(",")} - {""}
    headers = {_BETA: ",".join(sorted(betas))} if betas else {}
    body = msgspec.json.encode({"requests": requests})
    return read((yield Outgoing(url_of(provider.base_url, "messages/batches"), body, headers)), _Batch).id


def find(provider: Provider, sought: Sought) -> Steps[Found]:
    """Find a batch by its requests' ids, which only the results tell."""
    url = url_of(provider.base_url, "messages/batches").with_query(limit="100")
    undecided = False
    for _ in range(_PAGES):
        page = read((yield Outgoing(url, b"", {}, "GET")), _Page)
        for batch in page.data:
            if _seconds(batch.created_at) < sought.since - _SKEW_S:
                return Found(undecided=undecided)
            if batch.id in sought.known or batch.total > sought.requests:
                continue
            if batch.processing_status != "ended":
                undecided = True
                continue
            first = (yield _results(provider, batch.id)).partition(b"\n")[0]
            if first.strip() and read(first, _Line).custom_id.startswith(sought.name + "-"):
                return Found(batch.id)
        if not page.has_more or not page.last_id:
            return Found(undecided=undecided)
        url = url.update_query(after_id=page.last_id)
    raise UpstreamBroken("the provider lists more batches than are looked through")


def has_ended(provider: Provider, batch_id: str) -> Steps[bool]:
    """Return whether a batch has ended."""
    url = url_of(provider.base_url, f"messages/batches/{batch_id}")
    return read((yield Outgoing(url, b"", {}, "GET")), _Batch).processing_status == "ended"


def cancel(provider: Provider, batch_id: str) -> Steps[None]:
    """Ask for a batch's end."""
    yield Outgoing(url_of(provider.base_url, f"messages/batches/{batch_id}/cancel"), b"", {})


def results(provider: Provider, batch_id: str) -> Steps[Results]:
    """Return what is asked for the results."""
    return Results([_results(provider, batch_id)])
    yield  # as the others


def _results(provider: Provider, batch_id: str) -> Outgoing:
    return Outgoing(url_of(provider.base_url, f"messages/batches/{batch_id}/results"), b"", {}, "GET")


def result_from(line: bytes) -> Result:
    """Read a result."""
    given = read(line, _Line)
    outcome = given.result
    if outcome.type == "succeeded":
        return Result(given.custom_id, bytes(outcome.message))
    if outcome.type == "errored":
        failure = outcome.error.error if outcome.error is not None else Failure()
        return Result(given.custom_id, error=failed(0, failure))
    return Result(given.custom_id, expired=outcome.type == "expired")


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UpstreamBroken("the provider's list of batches has a date that is none") from None


BATCHES: Final = BatchApi(
    create=create, find=find, has_ended=has_ended, cancel=cancel, results=results, result_from=result_from
)
