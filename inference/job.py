"""What every request in an engine has, whatever it asks for. Free of torch, for the event loop's thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from inference.fair import NAMELESS, Flow
from services.common.errors import MoaError

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed; nothing follows."""

    error: MoaError


@dataclass(slots=True, eq=False, kw_only=True)
class Job(Generic[E]):
    """A request in an engine: it waits, runs, and is over once.

    Only the engine ends it; anyone may have it cancelled (`Engine.cancel`).
    """

    flow: Flow = NAMELESS
    """Who shares the engine by it."""
    deadline: float = math.inf
    """When it is of no more use, on the monotonic clock."""
    emit: Callable[[E | Failed], None] = lambda event: None
    """Where its events go, from the engine's threads."""
    cancelled: bool = False
    """Whether its caller left: nothing more is emitted."""
    over: bool = False
    """Whether its last event was emitted."""

    @property
    def live(self) -> bool:
        """Whether anybody still waits for it."""
        return not (self.cancelled or self.over)
