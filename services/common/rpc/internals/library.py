"""grpcio's compiled module, as far as it is the one that its replacements were checked with."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import grpc

from services.common import logs

try:
    from grpc._cython import cygrpc as _cygrpc  # type: ignore[attr-defined]  # its stubs leave it out
except ImportError:
    _cygrpc = None

CHECKED: Final = "1.85"
"""The release (its first two numbers) that replacements were checked with."""
_NAMES: Final = (
    "RPCState",
    "ReceiveMessageOperation",
    "SendStatusFromServerOperation",
    "_ServicerContext",
    "asyncio",
    "execute_batch",
    "socket",
)
"""What they replace or recognise."""
LIBRARY: Final[Any] = _cygrpc


def unusable(library: Any, version: str) -> str:
    """Return why nothing of such a module is replaced; empty: it may be."""
    if version.split(".")[:2] != CHECKED.split("."):
        return f"checked with grpcio {CHECKED} only"
    absent = [name for name in _NAMES if not hasattr(library, name)]
    return f"it has no {', '.join(absent)}" if absent else ""


@cache
def usable() -> bool:
    """Return whether replacements are made in this process; where not, say so once in the log."""
    why = unusable(LIBRARY, grpc.__version__)
    if why:
        logs.get("grpc").warning("grpc.not_replaced", version=grpc.__version__, why=why)
    return not why
