"""Exports what was logged to a bucket, in the background."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from services.auth.adapters.request_log_exports import Exports
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.errors import Unavailable

_log = logs.get("log_exporter")


class LogExporter:
    """Puts what waits to the bucket, now and then, while its context is open.

    Args:
        every_s: How often.
    """

    def __init__(self, exports: Exports, *, every_s: float) -> None:
        self._exports = exports
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="log exporter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                while await self._exports.round():
                    pass
            except Unavailable:
                pass
            except Exception:
                # A bug must not end the only thing that exports.
                _log.exception("export.failed")
