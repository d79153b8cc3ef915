"""Works off in the background what there may be much of: what is over in the log of requests and in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.errors import Unavailable

_log = logs.get("backlogs")

EVERY_S = 60.0
_REST_S: Final = 3.0
"""How long it rests after a second's work where there is more: three quarters of the time are for others."""


class Backlogs:
    """Does its duties, now and then, while its context is open.

    Args:
        duties: Each works for about a second and returns whether there is more to do.
    """

    def __init__(
        self,
        duties: Sequence[Callable[[], Awaitable[bool]]],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._duties = duties
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="backlogs")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(self._task)

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
