"""Works off in the background what there may be much of: what is over in the log of requests and in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.common import logs
from services.common.background_loop import BackgroundLoop
from services.common.errors import Unavailable

_log = logs.get("backlogs")

EVERY_S = 60.0
_REST_S: Final = 3.0
"""How long it rests after a second's work where there is more: three quarters of the time are for others."""


class Backlogs(BackgroundLoop):
    """Does its duties, now and then, while its context is open.

    Args:
        duties: Each works for about a second and returns whether there is more to do.
    """

    task_name = "backlogs"

    def __init__(
        self,
        duties: Sequence[Callable[[], Awaitable[bool]]],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._duties = duties
        self._sleep = sleep

    async def _run(self) -> None:
        pause_s = EVERY_S
        while True:
            await self._sleep(pause_s)
            pause_s = EVERY_S
            for duty in self._duties:
                try:
                    if await duty():
                        pause_s = _REST_S
                except Unavailable:
                    pass
                except Exception:
                    # A bug in one duty must not end the other.
                    _log.exception("backlog.failed")
