"""The worker of batches of messages: asks the router for each request, and keeps what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from moa.common.v1 import error_pb2
from services.common import errors, logs
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import Conflict, Internal, MoaError, Unavailable
from services.tasks import metrics
from services.tasks.adapters.batch_queue import BatchQueue
from services.tasks.adapters.database import BATCHES, REST_S, Notices, steadily, wait
from services.tasks.domain import retry
from services.tasks.domain.batch import ERRORED, MOST_BYTES, SUCCEEDED, Claimed

_log = logs.get("tasks.batches")

Ask = Callable[[Claimed, bytes], Awaitable[bytes]]
Render = Callable[[MoaError, str], Any]

TRIES: Final = 8
"""How often a request is tried that fails in a way that may pass."""
_LOOK_S: Final = 1.0
_RETRY_S: Final = 1.0
_CLEAN_S: Final = 600.0
_LIMITS: Final = frozenset((error_pb2.REASON_RATE_LIMITED, error_pb2.REASON_UPSTREAM_RATE_LIMITED))
"""Refusals that are waited out, as long as the batch lasts."""
_STILL_RUNS: Final = error_pb2.REASON_REQUEST_RUNNING
"""An earlier claim of the same try is being answered."""
_encode: Final = msgspec.json.Encoder().encode


class BatchWorker:
    """Answers requests of batches, `room` at once, until it is stopped.

    Args:
        queue: Where they come from.
        ask: Returns the message that answers one with this body, as JSON. Raises MoaError.
        render: Returns an error as results show it, by its request's id.
        notices: Come when something can be claimed.
        room: How many at once.
        keep_s: How long a batch that has ended is kept.
    """

    def __init__(
        self, queue: BatchQueue, ask: Ask, render: Render, notices: Notices, *, room: int, keep_s: float
    ) -> None:
        self._render = render
        self._queue = queue
        self._ask = ask
        self._notices = notices
        self._room = room
        self._keep_s = keep_s
        self._clean_at = self._sweep_at = 0.0
        """When it next removes what is over, and looks for what is left behind, by `time.monotonic`."""
        self._running: dict[tuple[str, int], tuple[Claimed, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Claim and answer requests until cancelled; then put back what runs."""
        beating = asyncio.create_task(self._beat(), name="batches.beat")
        try:
            with self._notices.listening(BATCHES) as rung:
                while True:
                    rung.clear()
                    pause_s = await self._round()
                    await wait(rung, self._queue.lease_s if len(self._running) >= self._room else pause_s)
        finally:
            await cancel_and_wait(beating, *(doing for _, doing in self._running.values()), again_s=CLEANING_S)

    async def _round(self) -> float:
        """Sweep, and claim what there is room for; return how long to wait for a ring.

        What fails is done the next time. Nothing tells that a waiting request's time or turn has come; where no batch
        is open, only a ring begins anything.
        """
        now = time.monotonic()
        try:
            if now >= self._clean_at:
                self._clean_at = now + _CLEAN_S
                await self._queue.clean(self._keep_s)
            if not await self._queue.waits():
                return REST_S
            if now >= self._sweep_at:
                self._sweep_at = now + _LOOK_S
                await self._queue.sweep()
            room = self._room - len(self._running)
            for claimed in await self._queue.claim(room) if room > 0 else ():
                doing = asyncio.create_task(self._do(claimed), name=f"batch.{claimed.batch_id}.{claimed.place}")
                self._running[claimed.batch_id, claimed.place] = (claimed, doing)
        except Unavailable:
            pass
        except Exception:
            # A bug must not end the only thing of this process that takes requests up.
            _log.exception("batches.round_failed")
        return _LOOK_S

    async def _beat(self) -> None:
        """Keep the leases, and stop what is another's by now."""
        while True:
            await asyncio.sleep(self._queue.lease_s / 4)
            held = dict(self._running)
            if not held:
                continue
            try:
                mine = await self._queue.renew([claimed for claimed, _ in held.values()])
            except Exception as error:
                if not isinstance(error, Unavailable):
                    _log.exception("batches.beat_failed")
                continue
            for name, (_, doing) in held.items():
                if name not in mine:
                    doing.cancel()

    async def _do(self, claimed: Claimed) -> None:
        try:
            await self._answer(claimed)
        except asyncio.CancelledError:
            # Stopped, or lost: whoever takes it up goes on with the same try. A result under an old fence is none.
            with contextlib.suppress(MoaError):  # its lease ends by itself
                await self._queue.put_back(claimed, pause_s=0, counted=False)
            raise
        except Exception:
            _log.exception("batches.request_failed", batch=claimed.batch_id, place=claimed.place)
        finally:
            self._running.pop((claimed.batch_id, claimed.place), None)
            self._notices.notify(BATCHES)

    async def _answer(self, claimed: Claimed) -> None:
        try:
            if claimed.is_full:
                message = f"the account's batches hold {MOST_BYTES >> 20} MB, the most that is kept; delete some"
                raise Conflict(message)
            params = await self._queue.request(claimed)
            if params is None:
                raise Conflict("the batch's request can be read no more: the operator's key for it is gone")
            answer = await self._ask(claimed, params)
        except MoaError as error:
            await self._failed(claimed, error)
            return
        except Exception:
            _log.exception("batches.ask_failed", batch=claimed.batch_id, place=claimed.place)
            await self._failed(claimed, Internal(f"internal error (request {claimed.request_id})"))
            return
        await self._end(claimed, SUCCEEDED, b'{"type":"succeeded","message":%b}' % answer)

    async def _failed(self, claimed: Claimed, error: MoaError) -> None:
        """Put a request back whose failure may pass; keep the failure as its result otherwise."""
        still_runs, waits = error.reason == _STILL_RUNS, error.reason in _LIMITS
        lost = error.reason == error_pb2.REASON_ANSWER_LOST and claimed.tries + 1 < TRIES
        if still_runs or waits or lost or retry.is_worthwhile(error, claimed.tries + 1, TRIES):
            pause_s = retry.pause_s(error, claimed.tries + 1, _RETRY_S)
            await steadily(lambda: self._queue.put_back(claimed, pause_s=pause_s, counted=not still_runs))
            metrics.RETRIED.labels(errors.word(error.reason)).inc()
            return
        rendered = self._render(error, claimed.request_id)
        await self._end(claimed, ERRORED, _encode({"type": "errored", "error": rendered}))

    async def _end(self, claimed: Claimed, state: int, result: bytes) -> None:
        if await steadily(lambda: self._queue.end(claimed, state, result)):
            metrics.BATCHED.labels("succeeded" if state == SUCCEEDED else "errored").inc()
