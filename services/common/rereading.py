"""Reads that are made again where their database's connection was lost amid them: they change nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from services.common.database import CutOff

READS: Final = ("Describe", "Download", "Find", "Get", "List", "Query", "Read", "ReportSpend")
"""What the names of calls begin with that change nothing."""

_Servicer = TypeVar("_Servicer")


def rereading(servicer: _Servicer) -> _Servicer:
    """Return the servicer, whose unary reads are made once more after `CutOff`, on a fresh connection."""
    for name in filter(lambda name: name.startswith(READS), dir(type(servicer))):
        method = getattr(servicer, name)
        if inspect.iscoroutinefunction(method):
            setattr(servicer, name, _again(method))
    return servicer


def _again(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    @functools.wraps(method)
    async def read(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except CutOff:
            return await method(request, context)

    return read
