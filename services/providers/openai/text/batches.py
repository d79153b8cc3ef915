"""OpenAI's Batch API, over its files (platform.openai.com/docs/api-reference/batch)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from services.catalogue import Provider
from services.common.errors import UpstreamBroken
from services.providers.http.client import Outgoing
from services.providers.openai.errors import error_from
from services.providers.openai.text.request import url_of
from services.providers.text.batches import BatchApi, Found, Line, Result, Results, Sought, Steps, read

_NAME: Final = "moa_batch"
"""The batch's metadata that holds its name."""
_ENDED: Final = frozenset(("failed", "completed", "expired", "cancelled"))
_WINDOW: Final = "24h"
_KEPT_S: Final = 30 * 86400
_PAGES: Final = 20
_SKEW_S: Final = 300


class _File(Struct):
    id: str


class _Batch(Struct):
    id: str
    status: str
    created_at: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    metadata: dict[str, Any] | None = None


class _Page(Struct):
    data: list[_Batch]
    has_more: bool = False


class _Response(Struct):
    status_code: int
    body: Raw = Raw(b"")


class _Failure(Struct):
    code: str | None = None
    message: str | None = None


class _Line(Struct):
    custom_id: str
    response: _Response | None = None
    error: _Failure | None = None


def create(provider: Provider, name: str, lines: Sequence[Line]) -> Steps[str]:
    """Upload the requests as a file, and make a batch of it."""
    path = lines[0].outgoing.url.path
    written = b"".join(_written(line, path) for line in lines)
    uploaded = read((yield _upload(provider, f"{name}.jsonl", written)), _File)
    body = {
        "input_file_id": uploaded.id,
        "endpoint": path,
        "completion_window": _WINDOW,
        "metadata": {_NAME: name},
    }
    return read((yield Outgoing(url_of(provider.base_url, "/batches"), msgspec.json.encode(body), {})), _Batch).id


def _written(line: Line, path: str) -> bytes:
    body = Raw(bytes(line.outgoing.body))
    return msgspec.json.encode({"custom_id": line.custom_id, "method": "POST", "url": path, "body": body}) + b"\n"


def _upload(provider: Provider, filename: str, data: bytes) -> Outgoing:
    boundary = secrets.token_hex(16)
    fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": str(_KEPT_S)}
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    body = "".join((*parts, head)).encode() + data + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return Outgoing(url_of(provider.base_url, "/files"), body, headers)


def find(provider: Provider, sought: Sought) -> Steps[Found]:
    """Find a batch by its metadata."""
    url = url_of(provider.base_url, "/batches").with_query(limit="100")
    for _ in range(_PAGES):
        page = read((yield Outgoing(url, b"", {}, "GET")), _Page)
        for batch in page.data:
            if batch.created_at < sought.since - _SKEW_S:
                return Found()
            if (batch.metadata or {}).get(_NAME) == sought.name:
                return Found(batch.id)
        if not page.has_more or not page.data:
            return Found()
        url = url.update_query(after=page.data[-1].id)
    raise UpstreamBroken("the provider lists more batches than are looked through")


def _batch(provider: Provider, batch_id: str) -> Steps[_Batch]:
    return read((yield Outgoing(url_of(provider.base_url, f"/batches/{batch_id}"), b"", {}, "GET")), _Batch)


def has_ended(provider: Provider, batch_id: str) -> Steps[bool]:
    """Return whether a batch has ended."""
    return (yield from _batch(provider, batch_id)).status in _ENDED


def cancel(provider: Provider, batch_id: str) -> Steps[None]:
    """Ask for a batch's end."""
    yield Outgoing(url_of(provider.base_url, f"/batches/{batch_id}/cancel"), b"", {})


def results(provider: Provider, batch_id: str) -> Steps[Results]:
    """Return what is asked for the files of answers and of errors; none where no request was begun."""
    batch = yield from _batch(provider, batch_id)
    files = (batch.output_file_id, batch.error_file_id)
    asked = (url_of(provider.base_url, f"/files/{file_id}/content") for file_id in files if file_id)
    return Results([Outgoing(url, b"", {}, "GET") for url in asked])


def result_from(line: bytes) -> Result:
    """Read a result."""
    given = read(line, _Line)
    if given.response is not None and given.response.status_code == 200:
        return Result(given.custom_id, bytes(given.response.body))
    if given.response is not None and given.response.status_code:
        return Result(given.custom_id, error=error_from(given.response.status_code, {}, bytes(given.response.body)))
    code = given.error.code if given.error is not None else ""
    if code in ("batch_expired", "batch_cancelled"):
        return Result(given.custom_id, expired=code == "batch_expired")
    failure = msgspec.json.encode({"error": {"code": code, "message": given.error.message if given.error else ""}})
    return Result(given.custom_id, error=error_from(500, {}, failure))


BATCHES: Final = BatchApi(
    create=create, find=find, has_ended=has_ended, cancel=cancel, results=results, result_from=result_from
)
