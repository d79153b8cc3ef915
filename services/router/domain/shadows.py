"""Shadows: the same request put to another target, whose answer nobody gets and whose cost is the operator's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Catalogue, Model
from services.common import logs
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import MoaError, error_of
from services.quota_client.amounts import NOTHING, Amount
from services.quota_client.labels import NO_LABELS
from services.router import metrics
from services.router.domain.caller import Caller
from services.router.domain.operation import Backends, Call
from services.router.domain.upstreams import Upstreams

MOST: Final = 16
"""How many shadows run at once in a router: beyond, none is begun."""
LONGEST_S: Final = 600.0
"""How long one may take."""
ACCOUNT: Final = "operator"
"""For whom they are made, where accounts have turns."""

_log = logs.get("shadows")


class Operators:
    """What stands for a reservation and a key where nobody is charged."""

    reservation_id = ""
    account_id = ACCOUNT
    priority = "low"
    operation: quota_pb2.Operation.ValueType = quota_pb2.OPERATION_UNSPECIFIED
    labels = NO_LABELS

    def __init__(self, amount: Amount) -> None:
        self.amount = amount
        self.tokens = amount.tokens

    @property
    def verified_key(self) -> Operators:
        """Itself."""
        return self

    def free(self, enough: Amount) -> Amount:
        """Return that nothing is left beyond what was set aside at first."""
        return NOTHING

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        """Return that no more is set aside: the answer ends there."""
        return NOTHING


class Shadows:
    """The shadows that run."""

    def __init__(self, backends: Backends, upstreams: Upstreams | None = None) -> None:
        self._backends = backends
        self._upstreams = upstreams
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def prepared(self, call: Call[Any, Any], models: Sequence[Model]) -> list[tuple[Call[Any, Any], Model]]:
        """Return a copy of the call for each shadow that may be begun; made before the call itself is changed."""
        prepared: list[tuple[Call[Any, Any], Model]] = []
        for model in models:
            twin = call.twin() if len(self._running) + len(prepared) < MOST else None
            if twin is None:
                metrics.SHADOWS.labels(model.provider, model.label, "skipped").inc()
            else:
                prepared.append((twin, model))
        return prepared

    def begin(self, prepared: Sequence[tuple[Call[Any, Any], Model]], caller: Caller, catalogue: Catalogue) -> None:
        """Begin them: once another has begun to answer the caller."""
        for twin, model in prepared:
            alone = Caller(key="", request_id=caller.request_id, fallback=False)
            task = asyncio.create_task(self._run(twin, model, alone, catalogue), name="shadow")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """End them."""
        await cancel_and_wait(*self._running, again_s=CLEANING_S)

    async def _run(self, call: Call[Any, Any], model: Model, caller: Caller, catalogue: Catalogue) -> None:
        outcome, usage = "failed", usage_pb2.Usage()
        try:
            async with asyncio.timeout(LONGEST_S):
                call.bind(caller, self._backends)
                call.check(model)
                paying: Any = Operators(call.amount((model,)).need)
                call.admitted(paying)
                usage = call.stake
                usage = await _drained(call, model, paying, self._upstreams)
                outcome = "done"
        except (MoaError, TimeoutError) as error:
            _log.info("shadow.failed", request_id=caller.request_id, model=model.full_id, why=type(error).__name__)
        except Exception:
            _log.exception("shadow.broke", request_id=caller.request_id, model=model.full_id)
        finally:
            metrics.SHADOWS.labels(model.provider, model.label, outcome).inc()
            cost = call.cost(catalogue)(usage, model.provider, model.id)
            metrics.unbilled(model, "shadow", usage, nano_usd=cost)


async def _drained(call: Call[Any, Any], model: Model, paying: Any, upstreams: Upstreams | None) -> usage_pb2.Usage:
    """Ask, read to the end, and return what was consumed. Raises MoaError."""
    begin = partial(call.ask, model, paying)
    stream = begin() if upstreams is None else upstreams.counted(model, paying.tokens, begin)
    metering = call.metering()
    try:
        while (message := await stream.read()) is not None:
            for event in message.events:
                kind = event.WhichOneof("event")
                if kind == "error":
                    raise error_of(event.error)
                metering.saw(event, kind)
                if kind == "finished":
                    stream.close()
                    return metering.usage
    except BaseException:
        stream.cancel()
        raise
    stream.close()
    return metering.usage
