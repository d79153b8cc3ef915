"""Hold every request of a server to its contract's limits before it is served."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from services.common import limits
from services.common.rpc.receiving import Handler


def limited(method: str, handler: Handler, returns: bool) -> Handler:
    """Return what checks a request, then serves it by `handler`: as a server's `around`."""

    async def serve(request: Any, context: Any) -> Any:
        if isinstance(request, Message):
            limits.check(request)
        return await handler(request, context)

    return serve
