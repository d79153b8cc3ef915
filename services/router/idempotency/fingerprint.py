"""What a request says, as a digest: two requests with the same are one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from google.api import httpbody_pb2
from google.protobuf.message import Message

from services.common import form
from services.common.errors import MoaError
from services.common.rpc.raw import RawBody
from services.quota_client.tags import TAGS_KEY
from services.router.dialects.reading import Body, Reading
from services.router.dialects.unknown import PARAMETERS_KEY
from services.router.serving import FALLBACK_KEY

_HEADERS: Final = (FALLBACK_KEY, PARAMETERS_KEY, TAGS_KEY)
"""Headers that change what is answered."""
_BODY: Final = httpbody_pb2.HttpBody.DESCRIPTOR
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


async def fingerprint(request: Message | RawBody, metadata: Iterable[tuple[str, Any]], reading: Reading) -> bytes:
    """Return the SHA-256 of what a request says, however it is written.

    The order of a JSON object's members, white space, and the boundary of a form, which clients make anew each time, do
    not count. `reading` is where bodies are read: a large one is not read on the loop.
    """
    parts = [
        part if isinstance(part, bytes) else await reading(canonical, Body(part), part.content_type)
        for part in _parts(request)
    ]
    return _digest((*parts, *_headers(metadata)))


def canonical(data: bytes, content_type: str) -> bytes:
    """Return the SHA-256 of what a body says; where that cannot be read, of the body: it will be refused."""
    return _digest(_canonical(data, content_type))


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _parts(request: Message | RawBody) -> Iterator[bytes | httpbody_pb2.HttpBody | RawBody]:
    if isinstance(request, httpbody_pb2.HttpBody | RawBody):
        yield request
        return
    fields = request.ListFields()
    if not any(field.message_type is _BODY for field, _ in fields):
        yield request.SerializeToString(deterministic=True)
        return
    for field, value in fields:
        yield field.name.encode()
        yield value if field.message_type is _BODY else str(value).encode()


def _canonical(data: bytes, content_type: str) -> Iterator[bytes]:
    try:
        if not form.is_form(content_type):
            yield _encode(msgspec.json.decode(data))
            return
        read = form.parse(data, content_type)
    except (MoaError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield data
        return
    for name in sorted(read.fields):
        yield f"field {name}".encode()
        yield from (text.encode() for text in read.fields[name])
    for name in sorted(read.files):
        yield f"file {name}".encode()
        yield from read.files[name]


def _headers(metadata: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    for name, value in metadata:
        if name in _HEADERS and isinstance(value, str):
            yield f"{name}: {value}".encode()
