"""Circuit breakers: a target that fails again and again is left alone for a while, where there is another to ask.

A target is a model of a provider. A provider's outage opens the breaker of each of its models that is asked for; a
model's own trouble (its capacity, its rate limit, its engine here) takes nothing from the others.

State is this process's, and only of targets that fail: the others cost a look into an empty table.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from services.catalogue import Model
from services.common import logs
from services.common.errors import MoaError, word
from services.router import metrics
from services.router.domain.failures import is_sick, was_left
from services.router.traffic import TRAFFIC

LIMIT: Final = 5
"""So many failures in a row open a breaker."""
REST_S: Final = 5.0
"""How long a target is left alone first; twice as long after each probe that fails."""
LONGEST_REST_S: Final = 20.0
"""Short enough that a target that is well again is back within half a minute, whatever the traffic."""
JITTER: Final = 0.25
"""How much of a rest is left out at most, so that routers do not probe together."""
PROBE_S: Final = 10.0
"""How long one request that tries a rested target keeps others from it, should nothing be heard of it."""

_log = logs.get("breaker")


class _State:
    """What is known of a target that failed."""

    __slots__ = ("failures", "probing", "rests", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.rests = 0
        """How often it was opened since it was last well."""
        self.until = 0.0
        """When it may be tried again; 0: it is closed."""
        self.probing = False


class Breakers:
    """The breakers of all targets.

    Args:
        clock: Monotonic seconds.
        jitter: Returns a number from 0 to 1.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._states: dict[tuple[str, str], _State] = {}

    def __len__(self) -> int:
        """Return of how many targets anything is kept."""
        return len(self._states)

    def admits(self, model: Model) -> bool:
        """Return whether to ask a target now. After its rest this is true once: for a probe."""
        state = self._states.get((model.provider, model.label))
        if state is None or not state.until:
            return True
        now = self._clock()
        if now < state.until:
            return False
        state.probing = True
        state.until = now + PROBE_S
        return True

    def is_open(self, model: Model) -> bool:
        """Return whether a target is left alone."""
        state = self._states.get((model.provider, model.label))
        return state is not None and bool(state.until)

    def began(self, model: Model) -> None:
        """Note that a target begins to answer: a breaker closes, but one more failure opens it again."""
        if not self._states:
            return
        state = self._states.get((model.provider, model.label))
        if state is not None and state.until:
            state.until, state.probing, state.failures = 0.0, False, LIMIT - 1
            metrics.TARGET_OPEN.labels(model.provider, model.label).set(0)
            TRAFFIC.closed(model.provider, model.label)
            _log.info("breaker.closed", provider=model.provider, model=model.id)

    def finished(self, model: Model) -> None:
        """Note that a target answered to the end."""
        if self._states:
            self.began(model)
            self._states.pop((model.provider, model.label), None)

    def failed(self, model: Model, error: MoaError) -> None:
        """Note a failure. One that is not the target's shows that it answers, if it came to its end."""
        if not is_sick(error):
            if not was_left(error):
                self.began(model)
            return
        state = self._states.setdefault((model.provider, model.label), _State())
        state.failures += 1
        if state.failures < LIMIT or (state.until and not state.probing):
            return
        rest_s = min(LONGEST_REST_S, max(REST_S * 2**state.rests, error.retry_after_s or 0.0))
        rest_s *= 1 - JITTER * self._jitter()
        state.rests = min(state.rests + 1, 16)
        state.until, state.probing = self._clock() + rest_s, False
        metrics.TARGET_OPEN.labels(model.provider, model.label).set(1)
        TRAFFIC.opened(model.provider, model.label, rest_s)
        _log.warning(
            "breaker.opened",
            provider=model.provider,
            model=model.id,
            reason=word(error.reason),
            rest_s=round(rest_s, 1),
        )
