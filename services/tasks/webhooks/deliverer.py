"""The deliverer of a process: takes what is due, signs it, sends it, and notes what came of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from services.common import logs, signing, tracing
from services.common.cancelling import cancel_and_wait
from services.common.clock import now_utc
from services.common.errors import InvalidField, MoaError, Unavailable, word
from services.common.isolate import note_failure
from services.common.store import Links
from services.tasks import metrics
from services.tasks.adapters.database import REST_S, WEBHOOKS, Notices, wait
from services.tasks.adapters.outbox import Delivery, Outbox
from services.tasks.adapters.tasks import Tasks
from services.tasks.dialects.webhook import body_of
from services.tasks.domain.task import Task
from services.tasks.views import Views

_log = logs.get("tasks.webhooks")

_AT_ONCE: Final = 16
_LOOK_S: Final = 1.0
_GONE: Final = 410
_WORDS: Final = 200


class Sender(Protocol):
    """Sends a POST through the egress guard."""

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """Return the receiver's HTTP status. Raises InvalidField for a target that is refused, else MoaError."""


class Deliverer:
    """Delivers webhooks until it is stopped.

    Args:
        outbox: Where they are.
        tasks: What they report on.
        views: How that is shown.
        sender: The way out.
        secrets: What signs.
        notices: Come when one was written.
        links: Makes the links that bodies carry.
        pauses_s: Pauses between attempts; after the last a delivery is given up.
        timeout_s: How long a receiver may take.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        tasks: Tasks,
        views: Views,
        sender: Sender,
        secrets: signing.Secrets,
        notices: Notices,
        links: Links,
        pauses_s: Sequence[float],
        timeout_s: float,
    ) -> None:
        self._outbox = outbox
        self._tasks = tasks
        self._views = views
        self._sender = sender
        self._secrets = secrets
        self._notices = notices
        self._links = links
        self._pauses_s = pauses_s
        self._timeout_s = timeout_s
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Deliver until cancelled. What is being sent then is sent again by another: receivers know it by its id."""
        try:
            with self._notices.listening(WEBHOOKS) as rung:
                while True:
                    rung.clear()
                    if not await self._take():
                        await wait(rung, await self.pause_s())
        finally:
            await cancel_and_wait(*self._running)

    async def pause_s(self) -> float:
        """Return how long to wait for a ring: until the next delivery is due, or its lease is looked at again."""
        try:
            due_s = await self._outbox.next_in_s()
        except Exception:
            return _LOOK_S
        return REST_S if due_s is None else min(REST_S, max(_LOOK_S, due_s))

    async def _take(self) -> bool:
        """Begin what is due; tell whether there was anything."""
        room = _AT_ONCE - len(self._running)
        if room <= 0:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return True
        try:
            due = await self._outbox.due(room, lease_s=self._timeout_s * 2)
        except Unavailable:
            return False
        except Exception:
            # A bug must not end the only thing of this process that delivers.
            _log.exception("outbox.failed")
            return False
        for delivery in due:
            task = asyncio.create_task(self.deliver(delivery), name=f"webhook.{delivery.id}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return bool(due)

    async def deliver(self, delivery: Delivery) -> None:
        """Send a webhook once, and note how that went. Raises nothing."""
        try:
            await self._attempt(delivery)
        except Unavailable:
            # Noting it failed; its lease ends, and it is sent again with the same id.
            _log.info("webhook.unnoted", delivery=delivery.id)
        except Exception as error:
            note_failure("webhook", delivery.id, error)
            await self._crashed(delivery)

    async def _crashed(self, delivery: Delivery) -> None:
        """Try it again later, as one whose receiver failed: less often each time, and not for ever."""
        try:
            await self._again(delivery, 0, "it could not be sent")
        except Exception:
            # Its lease ends, and it is tried again.
            _log.exception("webhook.unnoted", delivery=delivery.id)

    async def _attempt(self, delivery: Delivery) -> None:
        task = await self._tasks.find(delivery.task_id)
        if task is None:
            await self._outbox.dead(delivery, 0, "the task is gone")
            return
        outputs = await self._tasks.outputs([task.id])
        body = body_of(task, self._views.task(task, outputs.get(task.id, ())), self._links)
        now = now_utc()
        secrets = self._secrets.in_force(task.account_id, *await self._outbox.generation(task.account_id), now)
        headers = signing.headers(secrets, delivery.id, body.decode(), now)
        try:
            status = await self._sent(delivery, task, headers, body)
        except InvalidField as refused:
            await self._give_up(delivery, 0, refused.message, "refused")
        except MoaError as error:
            await self._again(delivery, 0, error.message)
        else:
            await self._answered(delivery, status)

    async def _sent(self, delivery: Delivery, task: Task, headers: Mapping[str, str], body: bytes) -> int:
        """Send it once, and give the receiver's status. Raises as the sender does."""
        span = tracing.working("deliver webhook", task.traceparent)
        failure = "cancelled"
        try:
            status = await self._sender.post(delivery.url, headers=headers, body=body, timeout_s=self._timeout_s)
            failure = "" if status < 400 else str(status)
            if span is not None:
                span.note({"http.response.status_code": status})
            return status
        except MoaError as error:
            failure = word(error.reason)
            raise
        finally:
            if span is not None:
                span.note({"moa.task": task.id, "moa.delivery": delivery.id, "moa.attempt": delivery.attempts})
                span.end(failure)

    async def _answered(self, delivery: Delivery, status: int) -> None:
        if 200 <= status < 300:
            await self._outbox.delivered(delivery, status)
            metrics.WEBHOOKS.labels("delivered").inc()
            metrics.WEBHOOK_DELAY.observe((now_utc() - delivery.created_at).total_seconds())
        elif status == _GONE:
            await self._give_up(delivery, status, "the receiver is gone", "gone")
        else:
            await self._again(delivery, status, f"the receiver answered {status}")

    async def _again(self, delivery: Delivery, status: int, why: str) -> None:
        # Progress is worth nothing late; the end is worth a day.
        if delivery.event != "completed" or delivery.attempts > len(self._pauses_s):
            await self._give_up(delivery, status, why, "dead")
            return
        pause_s = self._pauses_s[delivery.attempts - 1] * random.uniform(0.9, 1.2)  # noqa: S311  # spreads load
        await self._outbox.again(delivery, status, why[:_WORDS], pause_s)
        metrics.WEBHOOKS.labels("failed").inc()

    async def _give_up(self, delivery: Delivery, status: int, why: str, outcome: str) -> None:
        await self._outbox.dead(delivery, status, why[:_WORDS])
        metrics.WEBHOOKS.labels(outcome).inc()
        _log.warning("webhook.given_up", delivery=delivery.id, task=delivery.task_id, status=status, outcome=outcome)
