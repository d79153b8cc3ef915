"""Files that callers upload, to name them as inputs of predictions."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

import msgspec

from services.common import form, images
from services.common.errors import InvalidField
from services.common.images import ImageInfo
from services.common.store import Links
from services.tasks.adapters.files import File

MAX_NAME: Final = 255
MAX_METADATA_BYTES: Final = 4096


class Uploaded(msgspec.Struct):
    """What a form holds."""

    data: bytes
    info: ImageInfo
    filename: str
    metadata: dict[str, Any]


def read(data: bytes, content_type: str) -> Uploaded:
    """Read the form of an upload. Raises what `form.parse` raises; InvalidField, TooLarge or UnsupportedMedia."""
    given = form.parse(bytes(data), content_type)
    if "file" in given.files and "content" not in given.files:
        raise InvalidField(
            "this is Replicate's path, whose form has a content; send OpenAI's files inside a request, as file_data",
            param="content",
        )
    if len(given.files.get("content", ())) != 1:
        raise InvalidField("content is required: one file, as a part of a multipart form", param="content")
    [content], [filename] = given.files["content"], given.filenames["content"]
    return Uploaded(
        data=content,
        info=images.inspect(content, param="content"),
        filename=(given.fields.get("filename") or [filename])[0][:MAX_NAME],
        metadata=_metadata(given.fields.get("metadata", ["{}"])[0]),
    )


def _metadata(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise InvalidField("metadata: a JSON object is expected", param="metadata") from None
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise InvalidField(f"metadata: at most {MAX_METADATA_BYTES} bytes are taken", param="metadata")
    return found


def shown(file: File, links: Links) -> dict[str, Any]:
    """Return a file as the public clients parse it. `urls.get` is what they send as an input."""
    return {
        "id": file.name,
        "name": file.filename,
        "content_type": file.content_type,
        "size": file.size_bytes,
        "etag": file.sha256[:32],
        "checksums": {"sha256": file.sha256},
        "metadata": file.metadata,
        "created_at": file.created_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "expires_at": file.expires_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "urls": {"get": links.make(file.name)},
    }
