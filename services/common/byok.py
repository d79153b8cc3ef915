"""Callers who bring a key of a provider's: how it travels between services, and who pays.

The key is on its way for one call only: in the call's metadata from the router to whoever asks the provider, and
nowhere else. It is never part of a message, for messages may be kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

METADATA_KEY: Final = "x-moa-caller-key"
"""Holds the caller's own key in the metadata of a call between services."""
ACCOUNT_ID: Final = "byok"
"""The account as which all these callers run; auth makes it."""
KEY_ID: Final = "key_byok"
"""That account's one key. It has no secret: only this gateway's services can act by it."""


def caller_key(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """Return the caller's own key out of an internal call's metadata; empty when there is none."""
    for name, value in metadata or ():
        if name == METADATA_KEY:
            return str(value)
    return ""
