"""The key by which a caller says that a request is one that it may have made before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from services.common.errors import IdempotencyKeyReused, InvalidField

HEADER: Final = "Idempotency-Key"
_METADATA: Final = HEADER.lower()
MOST_CHARS: Final = 255
REPLAYED: Final = "idempotent-replayed"
"""The response header that says `true` where the answer was given before."""
ORIGINAL_ID: Final = "x-moa-original-request-id"
"""The response header with the id of the request whose answer it is."""


def key_in(metadata: Iterable[tuple[str, Any]]) -> str:
    """Return the idempotency key of a call; empty where it has none. Raises InvalidField for one that is too long."""
    for name, value in metadata:
        if name == _METADATA and isinstance(value, str):
            key = value.strip()
            if len(key) > MOST_CHARS:
                raise InvalidField(f"an idempotency key has at most {MOST_CHARS} characters", param=HEADER)
            return key
    return ""


def reused() -> IdempotencyKeyReused:
    """Return the refusal of a key that another request was made with."""
    return IdempotencyKeyReused("this idempotency key was used for another request", param=HEADER)
