"""What a conversation says of who should answer it: what its prompt holds, and which requests are of it.

A provider's prompt cache is warm where a conversation's first request went.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest

_READ: Final = 64 * 1024
"""How many bytes of what a prompt begins with tell conversations apart."""


def conversation_of(request: GenerateTextRequest, named: str) -> str:
    """Return what is the same for all requests of a conversation.

    That is what the caller says: `named` (`prompt_cache_key`), else `user`; else a digest of what comes before the
    first answer: the system's messages, the tools and the first message of the user.
    """
    if named:
        return f"key {named}"
    if request.user:
        return f"user {request.user}"
    return f"prefix {_prefix(request)}"


def _prefix(request: GenerateTextRequest) -> str:
    digest, left = hashlib.blake2b(digest_size=16), _READ
    for tool in request.tools:
        left = _update(digest, tool.name, left)
    for message in request.messages:
        if message.role == text_pb2.ROLE_ASSISTANT:
            break
        left = _update(digest, str(message.role), left)
        for part in message.parts:
            if part.HasField("text"):
                left = _update(digest, part.text, left)
        if message.role == text_pb2.ROLE_USER or left <= 0:
            break
    return digest.hexdigest()


def _update(digest: Any, text: str, left: int) -> int:
    """Take a text into a digest, as far as there is room; return the room that is left."""
    data = text[: max(0, left)].encode()
    digest.update(len(data).to_bytes(8))
    digest.update(data)
    return left - len(data)


def modalities_of(request: GenerateTextRequest) -> frozenset[str]:
    """Return what a prompt holds beside text: `image`, `audio`, `video`, `file`; and `text`, which every one does."""
    found = {"text"}
    for message in request.messages:
        for part in message.parts:
            if part.HasField("image"):
                found.add("image")
            elif part.HasField("file"):
                kind = part.file.mime_type.partition("/")[0]
                found.add(kind if kind in ("audio", "video") else "file")
    return frozenset(found)
