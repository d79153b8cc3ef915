"""Exports what was logged to a bucket, in the background."""

from __future__ import annotations

import asyncio

from services.auth.adapters.request_log_exports import Exports
from services.common import logs
from services.common.background_loop import BackgroundLoop
from services.common.errors import Unavailable

_log = logs.get("log_exporter")


class LogExporter(BackgroundLoop):
    """Puts what waits to the bucket, now and then, while its context is open.

    Args:
        every_s: How often.
    """

    task_name = "log exporter"

    def __init__(self, exports: Exports, *, every_s: float) -> None:
        self._exports = exports
        self._every_s = every_s

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
