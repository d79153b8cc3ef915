"""Write `multipart/form-data` bodies (RFC 7578)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import uuid4

from services.providers.http.woven import LARGE_BYTES, Woven


class File(NamedTuple):
    """A file of a form."""

    data: bytes
    mime: str
    name: str = "image"


def form(fields: Iterable[tuple[str, str | File]]) -> tuple[bytes | Woven, str]:
    """Return the body, in which large files are as they were given, and its content type.

    A field's name may come several times.
    """
    boundary = f"moa{uuid4().hex}"
    pieces: list[bytes] = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, File):
            head += f'; filename="{value.name}.{value.mime.partition("/")[2]}"\r\nContent-Type: {value.mime}'
            data = value.data
        else:
            data = value.encode()
        pieces += [head.encode(), b"\r\n\r\n", data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    body = Woven(pieces)
    return body if len(body) > LARGE_BYTES else bytes(body), f"multipart/form-data; boundary={boundary}"
