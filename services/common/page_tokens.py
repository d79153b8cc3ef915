"""Page tokens: where the next page of a list begins, for callers a text without meaning that they send back."""

from __future__ import annotations

import base64
import json
from datetime import date, datetime
from typing import Any, Final

from services.common.errors import InvalidField

_MOST_DIGITS: Final = 18
_MOST_CHARS: Final = 4096


def number(token: str, *, param: str = "page_token") -> int | None:
    """Return the number that a token is; None for the first page. Raises InvalidField."""
    if not token:
        return None
    if not token.isascii() or not token.isdigit() or len(token) > _MOST_DIGITS:
        raise unknown(param)
    return int(token)


def written(place: Any) -> str:
    """Return the token of a place that is more than a number: of anything that JSON holds, and dates."""
    return base64.urlsafe_b64encode(json.dumps(place, default=_text).encode()).decode()


def _text(value: date) -> str:
    return value.isoformat()  # a time of day is part of it, where there is one


def read(token: str, *, param: str = "page_token") -> Any:
    """Return the place of a token that `written` made; None for the first page. Raises InvalidField.

    The token comes from a caller: what it holds is to be checked before it is used.
    """
    if not token:
        return None
    try:
        if len(token) > _MOST_CHARS:
            raise ValueError
        place = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        # JSON can write half a surrogate pair, which no text of a database holds.
        json.dumps(place, ensure_ascii=False).encode()
        return place
    except (ValueError, RecursionError):
        raise unknown(param) from None


def time_and_id(token: str, *, param: str = "page_token") -> tuple[datetime, str] | None:
    """Return the time and the id that a token holds; None for the first page. Raises InvalidField."""
    place = read(token, param=param)
    if place is None:
        return None
    try:
        at, found = place
        return datetime.fromisoformat(at), str(found)
    except (TypeError, ValueError):
        raise unknown(param) from None


def unknown(param: str = "page_token") -> InvalidField:
    """Return the refusal of a token that no list gave."""
    return InvalidField(f"{param} is not of this list; start without one", param=param)
