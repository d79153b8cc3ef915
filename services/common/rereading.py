"""Reads that are made again where their database's connection was lost amid them: they change nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from moa.common.v1 import call_pb2
from services.common.database import CutOff

_STUBS: Final = "_pb2_grpc"
_SUFFIX: Final = "Servicer"

_Servicer = TypeVar("_Servicer")


def rereading(servicer: _Servicer) -> _Servicer:
    """Return the servicer, whose unary reads are made once more after `CutOff`, on a fresh connection."""
    for method in _contract(type(servicer)).methods:
        if method.GetOptions().Extensions[call_pb2.repeat] == call_pb2.REPEAT_READS:
            handler = getattr(servicer, method.name)
            if inspect.iscoroutinefunction(handler) and not method.server_streaming:
                setattr(servicer, method.name, _again(handler))
    return servicer


def _contract(servicer: type) -> ServiceDescriptor:
    """Return what a servicer serves, by the generated class that it is one of."""
    generated = next(each for each in servicer.__mro__ if each.__module__.endswith(_STUBS))
    package = generated.__module__.rpartition(".")[0]
    return descriptor_pool.Default().FindServiceByName(f"{package}.{generated.__name__.removesuffix(_SUFFIX)}")


def _again(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    @functools.wraps(method)
    async def read(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except CutOff:
            return await method(request, context)

    return read
