"""What callers can do with tasks, whatever dialect they speak."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.quota.v1 import quota_pb2
from moa.task.v1 import task_pb2
from services.catalogue import Model, UnknownModel, Watched, worded
from services.common import limits, page_tokens, tracing
from services.common.clock import now_utc
from services.common.errors import (
    Conflict,
    InvalidField,
    NoCredit,
    NotFound,
    PermissionDenied,
    ProviderNotConfigured,
    QuotaExhausted,
    Unsupported,
)
from services.common.rpc.keys import key_of
from services.quota_client import unpriced
from services.tasks import metrics
from services.tasks.adapters.database import Notices, wait
from services.tasks.adapters.quota import Quota, QuotaHold
from services.tasks.adapters.tasks import Tasks
from services.tasks.domain.task import FAILED, Task, error_of, is_terminal, new_id
from services.tasks.ports import Admission, VerifiedKey, WebhookTargets
from services.tasks.views import Views

MAX_IMAGES: Final = int(limits.bounds(GenerateImageRequest, "count")[1])
MAX_DEADLINE_S: Final = 86_400.0
MAX_URL: Final = 2048
_ALIVE_S: Final = 15.0
"""How long a stream says nothing at most: proxies on the way close what looks dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a caller asks for."""

    work: task_pb2.TaskWork
    dialect: str
    given: bytes = b""
    """The caller's own words, for dialects that show them again."""
    model: str
    provider: str = ""
    images: int = 1
    webhook_url: str = ""
    webhook_events: tuple[str, ...] = ("completed",)
    webhook_param: str = "webhook_url"
    """What the dialect calls the webhook's URL."""
    deadline_s: float | None = None
    idempotency_key: str = ""


class Operations:
    """Creates, reads, follows and ends tasks.

    Args:
        tasks: Where they are.
        admission: Verifies keys.
        quota: Lends quota.
        catalogue: The catalogue as it is now.
        notices: Come when a task's log grew.
        views: Shows tasks.
        targets: Which webhook URLs are taken.
        deadline_s: How long a task may take unless its caller says otherwise.
    """

    def __init__(
        self,
        *,
        tasks: Tasks,
        admission: Admission,
        quota: Quota,
        catalogue: Watched,
        notices: Notices,
        views: Views,
        targets: WebhookTargets,
        deadline_s: float,
    ) -> None:
        self._tasks = tasks
        self._admission = admission
        self._quota = quota
        self._catalogue = catalogue
        self._notices = notices
        self.views = views
        self._targets = targets
        self._deadline_s = deadline_s

    async def caller(self, context: object) -> tuple[str, VerifiedKey]:
        """Return the key of the call that is being served, and whose it is. Raises Unauthenticated or RateLimited."""
        key = key_of(context.invocation_metadata() or ())  # type: ignore[attr-defined]
        return key, await self._admission.arrive(key)

    def model(self, who: VerifiedKey, name: str, provider: str = "") -> Model:
        """Find the image model that a name means. Raises InvalidField, ModelNotFound, NotFound, Unsupported, …"""
        if not name:
            raise InvalidField("model is required", param="model")
        catalogue = self._catalogue.now
        try:
            model = catalogue.find(name, provider=provider, makes="image")
        except UnknownModel as unknown:
            raise worded(
                unknown,
                catalogue,
                lambda model: who.may(quota_pb2.OPERATION_TASK, model.provider, model.id),
                listed="GET /v1/models lists those that you may use",
            ) from None
        if not catalogue.is_reachable(model):
            raise ProviderNotConfigured(f"provider {model.provider} is not configured here", param="model")
        if catalogue.providers[model.provider].makes != "image":
            raise Unsupported(f"model {model.id} does not make images", param="model")
        unpriced.check(who, model)
        return model

    async def create(
        self, key: str, who: VerifiedKey, order: Order, *, request_id: str, tags: frozenset[str] = frozenset()
    ) -> Task:
        """Create a task, or give the one that was created under the same idempotency key.

        `tags` are what its caller calls it: with its model they say on which budgets it counts.
        Raises what `Quota.hold` and `Tasks.create` raise, and InvalidField for a webhook that is never called.
        """
        model = self.model(who, order.model, order.provider)
        unpriced.check(who.asking(model.provider, model.id, tags), model)
        images = max(1, order.images)
        if images > MAX_IMAGES:
            raise InvalidField(f"at most {MAX_IMAGES} images a task", param="n")
        if order.webhook_url:
            self._check_webhook(order)
        task = self._task(who, order, model, images)
        task.tags = sorted(tags)
        if tags:
            task.fingerprint = hashlib.sha256(task.fingerprint + "\n".join(task.tags).encode()).digest()
        if task.idempotency_key:
            known = await self._tasks.known(who.account_id, task.idempotency_key, task.fingerprint)
            if known is not None:
                return known
        try:
            hold = await self._held(key, task, order.work.image, images, request_id)
        except (NoCredit, QuotaExhausted):
            # The same request, sent twice at once, may have taken what was left.
            if task.idempotency_key:
                known = await self._tasks.known(who.account_id, task.idempotency_key, task.fingerprint)
                if known is not None:
                    return known
            raise
        take_back: Callable[[], None] = _nothing
        try:
            take_back = await self._admission.count(
                key, provider=model.provider, model=model.id, tags=tuple(task.tags), amount=hold.amount
            )
            created = await self._tasks.create(task)
        except BaseException:
            take_back()
            await self._quota.give_back(hold, return_id=task.id)
            raise
        if created.id != task.id:
            take_back()
            await self._quota.give_back(hold, return_id=task.id)
        else:
            metrics.CREATED.labels(order.dialect).inc()
        return created

    async def get(self, who: VerifiedKey, task_id: str) -> Task:
        """Return an account's task that the key could have made. Raises NotFound."""
        task = await self._tasks.get(who.account_id, task_id)
        if not _may_see(who, task):
            raise NotFound("task not found")
        return task

    async def linked(self, task_id: str) -> Task:
        """Return the task that a checked link names. Raises NotFound where it is gone."""
        task = await self._tasks.find(task_id)
        if task is None:
            raise NotFound("task not found")
        return task

    async def shown(self, task: Task) -> task_pb2.Task:
        """Return a task as callers see it."""
        outputs = await self._tasks.outputs([task.id])
        return self.views.task(task, outputs.get(task.id, ()))

    async def page(
        self,
        who: VerifiedKey,
        *,
        dialect: str | None = None,
        state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_UNSPECIFIED,
        token: str = "",
        size: int,
    ) -> tuple[list[tuple[Task, task_pb2.Task]], str]:
        """Return a page of tasks, as stored and as shown, and the next page's token.

        Tasks that the key could not have made are left out, so that a page may be short. Raises InvalidField, and
        PermissionDenied for a key that may make none.
        """
        if not who.may(quota_pb2.OPERATION_TASK, "", ""):
            raise PermissionDenied("this key may not use tasks; use one that may, or permit this one tasks")
        before = page_tokens.number(token)
        tasks, following = await self._tasks.page(
            who.account_id, dialect=dialect, state=state, before=before, size=size
        )
        tasks = [task for task in tasks if _may_see(who, task)]
        outputs = await self._tasks.outputs(task.id for task in tasks)
        shown = [(task, self.views.task(task, outputs.get(task.id, ()))) for task in tasks]
        return shown, "" if following is None else str(following)

    async def cancel(self, who: VerifiedKey, task_id: str) -> Task:
        """End a task. Raises NotFound."""
        await self.get(who, task_id)
        return await self._tasks.cancel(who.account_id, task_id)

    async def resume(self, key: str, who: VerifiedKey, task_id: str, *, request_id: str) -> Task:
        """Go on with a task whose outputs could not be stored. Raises NotFound or Conflict."""
        old = await self.get(who, task_id)
        error = error_of(old)
        if old.state != FAILED or error is None or not old.made:
            raise Conflict("only a task whose outputs could not be stored can be resumed")
        now = now_utc()
        task = Task(
            id=new_id(),
            account_id=old.account_id,
            key_id=who.key_id,
            dialect=old.dialect,
            provider=old.provider,
            model=old.model,
            work=old.work,
            given=old.given,
            fingerprint=old.fingerprint,
            resumed_from=old.id,
            traceparent=tracing.parent(),
            created_at=now,
            not_before=now,
            deadline=now + timedelta(seconds=self._deadline_s),
            made=True,
            desk=old.desk,
            price_micros=old.price_micros,
            webhook_url=old.webhook_url,
            webhook_events=old.webhook_events,
            tags=old.tags,
        )
        image = old.what.image
        hold = await self._held(key, task, image, max(1, image.count), request_id)
        task.create()
        try:
            created = await self._tasks.resume(task, old)
        except BaseException:
            await self._quota.give_back(hold, return_id=task.id)
            raise
        if created.id != task.id:
            await self._quota.give_back(hold, return_id=task.id)
        return created

    async def watch(self, task_id: str, after: int) -> AsyncGenerator[list[task_pb2.TaskEvent], None]:
        """Return a task's events behind `after` as they come, in batches, until its last. Whose it is was checked.

        An empty batch now and then says that the task is still followed.
        """
        with self._notices.listening(task_id) as rung:
            told_at = time.monotonic()
            while True:
                rung.clear()
                events = await self._tasks.events(task_id, after)
                if events:
                    after, told_at = events[-1].sequence, time.monotonic()
                    yield [self.views.event(event) for event in events]
                    if is_terminal(events[-1]):
                        return
                    continue
                if await self._is_over(task_id, after):
                    return
                await wait(rung)
                if time.monotonic() - told_at > _ALIVE_S:
                    told_at = time.monotonic()
                    yield []

    async def until_end(self, who: VerifiedKey, task: Task, at_most_s: float) -> Task:
        """Wait for a task's end, or for so long; give it as it is then."""
        loop_until = now_utc() + timedelta(seconds=at_most_s)
        with self._notices.listening(task.id) as rung:
            while not task.ended:
                rung.clear()
                task = await self._tasks.get(who.account_id, task.id)
                left_s = (loop_until - now_utc()).total_seconds()
                if task.ended or left_s <= 0:
                    break
                await wait(rung, min(left_s, 2.0))
        return task

    async def healthy(self) -> None:
        """Raise Unavailable when tasks cannot be reached."""
        await self._tasks.find("")

    async def _held(self, key: str, task: Task, image: GenerateImageRequest, images: int, request_id: str) -> QuotaHold:
        """Set a task's quota aside, and note by what. Raises what `Quota.hold` raises."""
        hold = await self._quota.hold(
            api_key=key,
            provider=task.provider,
            model=task.model,
            images=images,
            image=image,
            micro_credits=task.price_micros,
            request_id=request_id,
            tags=task.tags,
        )
        task.quota_lease, task.reservation_id = hold.lease_id or None, hold.reservation_id or None
        task.price_unknown = hold.price_unknown
        return hold

    async def _is_over(self, task_id: str, after: int) -> bool:
        """Return whether nothing will follow: the reader has the last event already, or the task was cleaned up."""
        task = await self._tasks.find(task_id)
        return task is None or (task.ended and task.last_sequence <= after)

    def _task(self, who: VerifiedKey, order: Order, model: Model, images: int) -> Task:
        now = now_utc()
        task = Task(
            id=new_id(),
            account_id=who.account_id,
            key_id=who.key_id,
            dialect=order.dialect,
            provider=model.provider,
            model=model.id,
            work=order.work.SerializeToString(deterministic=True),
            given=order.given,
            idempotency_key=order.idempotency_key or None,
            fingerprint=_fingerprint(order, model),
            traceparent=tracing.parent(),
            created_at=now,
            not_before=now,
            deadline=self._deadline(order, now),
            price_micros=round(model.credits * 1_000_000) * images,
            webhook_url=order.webhook_url,
            webhook_events=list(order.webhook_events),
        )
        task.create()
        return task

    def _deadline(self, order: Order, now: datetime) -> datetime:
        seconds = self._deadline_s if order.deadline_s is None else order.deadline_s
        if not 0 < seconds <= MAX_DEADLINE_S:
            raise InvalidField("a deadline must be in the future and within 24 hours", param="deadline")
        return now + timedelta(seconds=seconds)

    def _check_webhook(self, order: Order) -> None:
        url, param = order.webhook_url, order.webhook_param
        if len(url) > MAX_URL:
            raise InvalidField(f"{param}: a URL has at most {MAX_URL} characters", param=param)
        self._targets.check(url, param=param)


def _nothing() -> None:
    """Take nothing back."""


def _may_see(who: VerifiedKey, task: Task) -> bool:
    """Return whether a key may see a task of its account: one that it could have made itself."""
    return who.may(quota_pb2.OPERATION_TASK, task.provider, task.model)


def _fingerprint(order: Order, model: Model) -> bytes:
    digest = hashlib.sha256()
    for part in (
        order.dialect.encode(),
        model.full_id.encode(),
        order.work.SerializeToString(deterministic=True),
        order.webhook_url.encode(),
        ",".join(order.webhook_events).encode(),
    ):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
