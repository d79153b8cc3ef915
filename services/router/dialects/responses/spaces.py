"""Namespaces of functions, which only OpenAI's models know: others are offered each function by one name for both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

_MOST: Final = 64
"""How long a function's name may be."""
_DIGEST: Final = 8


def are_known(tools: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether whoever answers must know namespaces: it is to search for tools in them."""
    return any(tool.get("type") == "tool_search" for tool in tools)


def joined(space: str, name: str) -> str:
    """Return the one name of a function in a namespace, the same in every request."""
    whole = f"{space}__{name}"
    if len(whole) <= _MOST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST]
    return f"{whole[: _MOST - _DIGEST - 1]}_{digest}"
