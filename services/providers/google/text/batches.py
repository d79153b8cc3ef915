"""The Gemini Batch API, its requests and answers inline (ai.google.dev/api/batch-api).

A batch is an operation: its list has no documented order, and its results stand in the operation itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct
from yarl import URL

from services.catalogue import Provider
from services.common.errors import TooLarge, UpstreamBroken
from services.providers.google.errors import Failure, failed
from services.providers.http.client import Outgoing
from services.providers.text.batches import BatchApi, Found, Line, Result, Results, Sought, Steps, read

_METHOD: Final = "batchGenerateContent"
_MOST_BYTES: Final = 20_000_000
"""Of a batch whose requests are inline."""
_PAGE: Final = 20
"""Batches of a page of the list: each holds its results."""
_PAGES: Final = 50
_CANCELLED: Final = 1
_CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""The names of google.rpc.Code, by their numbers: a request's error has the number alone."""


class _Key(Struct):
    key: str = ""


class _Inlined(Struct):
    metadata: _Key = msgspec.field(default_factory=_Key)
    response: Raw = Raw(b"")
    error: Failure | None = None


class _Responses(Struct, rename="camel"):
    inlined_responses: list[_Inlined] = []


class _Output(Struct, rename="camel"):
    inlined_responses: _Responses = msgspec.field(default_factory=_Responses)


class _Batch(Struct):
    output: _Output = msgspec.field(default_factory=_Output)


class _Operation(Struct):
    name: str
    done: bool = False
    metadata: _Batch = msgspec.field(default_factory=_Batch)
    response: _Output = msgspec.field(default_factory=_Output)


class _Described(Struct, rename="camel"):
    display_name: str = ""


class _Named(Struct):
    """A batch, without what it holds."""

    name: str
    metadata: _Described = msgspec.field(default_factory=_Described)


class _Page(Struct, rename="camel"):
    operations: list[_Named] = []
    next_page_token: str = ""


class _State(Struct):
    done: bool = False


def create(provider: Provider, name: str, lines: Sequence[Line]) -> Steps[str]:
    """Make a batch of a displayed name. Raises TooLarge."""
    requests = [{"request": Raw(bytes(line.outgoing.body)), "metadata": {"key": line.custom_id}} for line in lines]
    body = msgspec.json.encode({"batch": {"displayName": name, "inputConfig": {"requests": {"requests": requests}}}})
    if len(body) > _MOST_BYTES:
        raise TooLarge(f"a batch of this provider has {_MOST_BYTES:,} bytes at most")
    model, _, _ = str(lines[0].outgoing.url).rpartition(":")
    url = URL(f"{model}:{_METHOD}", encoded=True)
    return read((yield Outgoing(url, body, {})), _Named).name


def _asked(provider: Provider, name: str) -> URL:
    return URL(f"{provider.base_url.rstrip('/')}/{name}")


def find(provider: Provider, sought: Sought) -> Steps[Found]:
    """Find a batch by its displayed name. The whole list is looked through."""
    url = _asked(provider, "batches").with_query(pageSize=str(_PAGE))
    for _ in range(_PAGES):
        page = read((yield Outgoing(url, b"", {}, "GET")), _Page)
        for operation in page.operations:
            if operation.metadata.display_name == sought.name:
                return Found(operation.name)
        if not page.next_page_token:
            return Found()
        url = url.update_query(pageToken=page.next_page_token)
    raise UpstreamBroken("the provider lists more batches than are looked through")


def has_ended(provider: Provider, batch_id: str) -> Steps[bool]:
    """Return whether a batch has ended: answered, failed, cancelled or expired."""
    # Without its results, which may be megabytes (cloud.google.com/apis/docs/system-parameters).
    url = _asked(provider, batch_id).with_query(fields="done")
    return read((yield Outgoing(url, b"", {}, "GET")), _State).done


def cancel(provider: Provider, batch_id: str) -> Steps[None]:
    """Ask for a batch's end."""
    yield Outgoing(_asked(provider, f"{batch_id}:cancel"), b"", {})


def results(provider: Provider, batch_id: str) -> Steps[Results]:
    """Return the results, which the batch holds; none of one that failed or expired as a whole."""
    operation = read((yield Outgoing(_asked(provider, batch_id), b"", {}, "GET")), _Operation)
    inlined = operation.response.inlined_responses.inlined_responses
    # One that was cancelled has no response; what it had answered by then stands in its description.
    inlined = inlined or operation.metadata.output.inlined_responses.inlined_responses
    return Results(inline=[_result(each) for each in inlined if each.error is not None or bytes(each.response)])


def _result(given: _Inlined) -> Result:
    key, error = given.metadata.key, given.error
    if error is None:
        return Result(key, bytes(given.response))
    if error.code == _CANCELLED:
        return Result(key)
    if not error.status and 0 < error.code < len(_CODES):
        error = Failure(error.code, error.message, _CODES[error.code], error.details)
    return Result(key, error=failed(0, error))


BATCHES: Final = BatchApi(create=create, find=find, has_ended=has_ended, cancel=cancel, results=results)
