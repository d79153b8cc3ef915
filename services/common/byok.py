"""Callers who bring their own Google key: how such a key looks, how it travels between services, who pays.

The key is on its way for one call only: in the call's metadata from the router to whoever asks Google, and nowhere
else. It is never part of a message, for messages may be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

METADATA_KEY: Final = "x-moa-caller-key"
"""Holds the caller's own key in the metadata of a call between services."""
ACCOUNT_ID: Final = "byok"
"""The account as which all these callers run; auth makes it."""
KEY_ID: Final = "key_byok"
"""That account's one key. It has no secret: only this gateway's services can act by it."""

_SHAPE: Final = re.compile(r"AIza[A-Za-z0-9_-]{1,251}", re.ASCII)
"""Nothing that could end a header's line passes."""


def is_google_key(key: str) -> bool:
    """Return whether a key is Google's rather than this gateway's, by its shape."""
    return _SHAPE.fullmatch(key) is not None


def caller_key(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """Return the caller's own key out of an internal call's metadata; empty when there is none."""
    return next((str(value) for name, value in metadata or () if name == METADATA_KEY), "")
