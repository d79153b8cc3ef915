"""What goes on in the background while a context is open."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from services.common.cancelling import cancel_and_wait


class BackgroundLoop(ABC):
    """A task that runs while its context is open, and has ended when that is left."""

    task_name: ClassVar[str]
    """What the task is called where tasks are listed."""
    _task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _run(self) -> None:
        """Go on until cancelled."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self.task_name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(self._task)
