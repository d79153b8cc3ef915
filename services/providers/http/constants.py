"""JSON with numbers that JSON does not have: `NaN`, `Infinity` and `-Infinity`, as some servers write a count."""

from __future__ import annotations

import json


def without_constants(data: bytes) -> bytes | None:
    """Return a JSON text with null in the place of such numbers; None where it has none, or is no JSON otherwise."""
    if b"NaN" not in data and b"Infinity" not in data:
        return None
    try:
        return json.dumps(json.loads(data, parse_constant=lambda _: None), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
