"""Read how long a provider asks to be left alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_S: Final = 24 * 3600.0
"""Longest wait that is believed."""

_DURATION: Final = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def from_headers(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` (seconds or a date, RFC 9110 10.2.3) or its kin ask for, else None."""
    milliseconds = headers.get("retry-after-ms") or headers.get("x-ms-retry-after-ms")
    if milliseconds:
        try:
            return _bounded(float(milliseconds) / 1000)
        except ValueError:
            pass
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return _bounded(float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return _bounded((when - datetime.now(UTC)).total_seconds())


def from_duration(text: str) -> float | None:
    """Return the seconds in `34.4s`, `6m0s`, `250ms` (Google's and Go's spelling), else None."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return _bounded(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


def _bounded(seconds: float) -> float | None:
    if not 0 <= seconds <= MAX_S:  # NaN too
        return 0.0 if seconds < 0 else None
    return seconds
