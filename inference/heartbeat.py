"""Signs of life of a call whose model is being loaded, waits for the engine, or is at work on something unshown."""

from __future__ import annotations

from typing import Any, Protocol

from services.common.rpc.heartbeat import Heartbeat, Writer

EVERY_S = 5.0
"""How often life is shown; far below what any caller bears."""


class Working(Protocol):
    """An engine."""

    @property
    def progress(self) -> int:
        """How much it has done: a number that grows with its work, for whomever, and with nothing else."""
        ...


class EngineHeartbeat(Heartbeat):
    """Writes a call's messages, and in their silences `empty` ones, as long as the engine gets on.

    An engine that hangs shows no life, so that its callers give it up.
    """

    __slots__ = ("_empty", "_progress", "engine")

    def __init__(self, context: Writer, empty: Any) -> None:
        super().__init__(context, first_s=EVERY_S, every_s=EVERY_S)
        self._empty = empty
        self._progress = -1
        self.engine: Working | None = None
        """Who works; None while the model is loaded and the work prepared, which counts as life."""

    def sign(self) -> Any | None:
        """Return the empty message if the engine got on since the last time."""
        if self.engine is None:
            return self._empty
        before, self._progress = self._progress, self.engine.progress
        return self._empty if self._progress != before else None
