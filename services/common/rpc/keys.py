"""Where callers put their API key, or the token of a session."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from services.common.errors import Unauthenticated

SESSION_PREFIX: Final = "ses-"
"""How a session's token begins, which the console sends where others send a key."""
_BARE: Final = re.compile(r"(?:moa|sk|dk|ses)-\S+")
"""A key, or a session's token, without the word before it."""
_SCHEMES: Final = ("bearer", "token")
_HEADERS: Final = ("x-api-key", "authorization", "x-goog-api-key")


def key_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Find the API key in a call's metadata: `x-api-key`, else `authorization`, else `x-goog-api-key`.

    Before it stands `Bearer`, in `authorization` alone also `Token`, which older clients of Replicate write; in the
    others it need not.

    The edge has moved `?key=` to `x-goog-api-key`, and proxies join a header that comes twice by commas. Two different
    keys in one request are refused, because one of them was meant to be charged and nobody can tell which. Every
    service that is told a key, or a session's token, finds it by this. Raises Unauthenticated.
    """
    result: set[str] = set()
    bare = twice = False
    for name, values in metadata:
        if name in _HEADERS and isinstance(values, str):
            for value in map(str.strip, values.split(",")):
                scheme, key = _parted(value)
                if scheme == "bearer" and " " in key and _parted(key)[0] == "bearer":
                    twice = True
                    continue
                if name != "authorization":
                    result.add(key if scheme in ("", "bearer") else value)
                elif scheme in _SCHEMES:
                    result.add(key)
                elif _BARE.fullmatch(value):
                    bare = True
    result.discard("")
    if len(result) > 1:
        raise Unauthenticated("the request carries two different API keys; send one")
    if not result and twice:
        raise Unauthenticated(
            "Bearer was sent twice before the key; send it once: many clients put it there themselves"
        )
    if not result and bare:
        raise Unauthenticated("the Authorization header names no scheme; send Authorization: Bearer and then the key")
    return next(iter(result), "")


def _parted(value: str) -> tuple[str, str]:
    """Return the scheme before a key, in lower case and empty where there is none, and the key."""
    scheme, space, key = value.partition(" ")
    return (scheme.lower(), key.strip()) if space else ("", value)
