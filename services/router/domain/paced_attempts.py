"""Attempts at a request that keep providers' limits: a target that would refuse is passed over, or waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from services.catalogue import Model
from services.common.errors import MoaError, UpstreamRateLimited
from services.router import metrics
from services.router.domain.attempts import Attempts
from services.router.domain.failures import HeldBack
from services.router.domain.fair_queue import QueueFull
from services.router.domain.ports import M, MessageStream, Reservation
from services.router.domain.terms import Ask, Begun
from services.router.domain.upstreams import Turn, Upstreams

MOST_WAIT_S: Final = 60.0
"""For how long a caller may have its request wait (`moa-max-wait`)."""


class PacedAttempts(Attempts[M]):
    """Attempts over providers whose limits are known.

    Args:
        upstreams: The limits.
        account: Whose request it is: accounts have turns where they wait.
        max_wait_s: How long it may wait where every target would refuse it.
    """

    def __init__(self, *args: Any, upstreams: Upstreams, account: str, max_wait_s: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._upstreams = upstreams
        self._account = account
        self._left_s = max_wait_s
        self._held: dict[str, tuple[Model, float]] = {}
        """Targets that were passed over, and in how many seconds they may take it."""
        self._turns: dict[str, Turn] = {}
        """Turns that were waited for."""

    async def begin(self, ask: Ask[M], *, able: Callable[[Model], bool] | None = None) -> Begun[M]:
        """As `Attempts.begin`; where every target would refuse, wait for one as long as the caller will."""
        more: dict[str, Any] = {} if able is None else {"able": able}

        def paced(model: Model, paying: Reservation) -> MessageStream[M]:
            turn = self._turns.pop(model.full_id, None)
            return self._upstreams.counted(model, paying.tokens, lambda: ask(model, paying), turn)

        try:
            while True:
                self._held.clear()
                try:
                    return await super().begin(paced, **more)
                except MoaError as failure:
                    await self._room(failure)
        finally:
            for turn in self._turns.values():
                turn.end(0)
            self._turns.clear()

    async def _room(self, failure: MoaError) -> None:
        """Wait until a target that was passed over may be asked. Raises the failure where none is in time."""
        if not self._held:
            raise failure
        model = min(self._held.values(), key=lambda held: held[1])[0]
        if self._left_s <= 0:
            metrics.UPSTREAM_HELD_BACK.labels(model.provider, "refused").inc()
            raise failure
        if not await self._waited(model):
            raise failure
        self.forgive(model)

    async def _asked(self, model: Model, ask: Ask[M]) -> Begun[M]:
        try:
            return await super()._asked(model, ask)
        except HeldBack as refused:
            self._held[model.full_id] = model, refused.retry_after_s or 0.0
            metrics.UPSTREAM_HELD_BACK.labels(model.provider, "passed").inc()
            raise
        except UpstreamRateLimited as limited:
            self._upstreams.limited(model, limited.retry_after_s or 0.0)
            raise

    async def _waited(self, model: Model) -> bool:
        """Wait for a target's turn; return whether it came in time."""
        clock = self._upstreams.clock
        began = clock()
        try:
            async with asyncio.timeout(self._left_s):
                self._turns[model.full_id] = await self._upstreams.wait(model, self.reservation.tokens, self._account)
        except (TimeoutError, QueueFull) as error:
            outcome = "full" if isinstance(error, QueueFull) else "timeout"
            metrics.UPSTREAM_HELD_BACK.labels(model.provider, outcome).inc()
            return False
        finally:
            waited_s = clock() - began
            self._left_s -= waited_s
            metrics.UPSTREAM_WAIT.labels(model.provider).observe(waited_s)
        metrics.UPSTREAM_HELD_BACK.labels(model.provider, "waited").inc()
        return True
