"""A task and its state machine: one method a transition, each of which writes what happened to the log.

pending -> submitted -> running -> succeeded | failed | cancelled
submitted, running -> pending            (put back)
pending, submitted -> failed | cancelled
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from moa.common.v1 import error_pb2
from moa.desk.v1 import desk_pb2
from moa.task.v1 import task_pb2
from services.common.errors import Conflict, MoaError, detail_of

PENDING: Final = task_pb2.TASK_STATE_PENDING
SUBMITTED: Final = task_pb2.TASK_STATE_SUBMITTED
RUNNING: Final = task_pb2.TASK_STATE_RUNNING
SUCCEEDED: Final = task_pb2.TASK_STATE_SUCCEEDED
FAILED: Final = task_pb2.TASK_STATE_FAILED
CANCELLED: Final = task_pb2.TASK_STATE_CANCELLED

ENDED: Final = frozenset((SUCCEEDED, FAILED, CANCELLED))
HELD: Final = frozenset((SUBMITTED, RUNNING))

_TERMINAL_EVENTS: Final = frozenset(("succeeded", "failed", "cancelled"))


class WrongState(Conflict):
    """The task is not in a state from which this leads on."""

    reason = Conflict.reason


class LeaseLost(Exception):
    """The task belongs to another worker by now: whoever sees this stops and writes nothing."""


def new_id() -> str:
    """Make a task's id: `ta` and a random UUID, as the task API documents it."""
    return f"ta{uuid.uuid4()}"


def is_terminal(event: task_pb2.TaskEvent) -> bool:
    """Return whether an event is a task's last."""
    return event.WhichOneof("event") in _TERMINAL_EVENTS


@dataclass(slots=True, kw_only=True)
class Task:
    """A task as it is stored. Change it by its methods only; `fresh` holds the events that are not written yet."""

    id: str
    account_id: str
    key_id: str
    dialect: str
    provider: str
    model: str
    work: bytes
    """`moa.task.v1.TaskWork`."""
    given: bytes = b""
    """The caller's own words, for dialects that show them again."""
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    resumed_from: str | None = None
    traceparent: str = ""
    """The span of the call that created it, for the spans of what is done later; empty where none is recorded."""
    state: task_pb2.TaskState.ValueType = PENDING
    created_at: datetime
    not_before: datetime
    deadline: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: int = 0
    fence: int = 0
    leased_by: str | None = None
    leased_until: datetime | None = None
    cancel_asked_at: datetime | None = None
    last_sequence: int = 0
    progress: bytes | None = None
    desk: bytes | None = None
    error: bytes | None = None
    made: bool = False
    price_micros: int = 0
    consumed_micros: int = 0
    in_ledger: bool = True
    """Whether its price is reserved with its images. Not that of a task of the release before."""
    quota_lease: str | None = None
    reservation_id: str | None = None
    price_unknown: bool = False
    """Whether nobody knew what its images cost, in dollars, when its quota was reserved."""
    webhook_url: str = ""
    webhook_events: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    """What its caller calls it, in order."""
    fresh: list[task_pb2.TaskEvent] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ENDED

    @property
    def reserved_micros(self) -> int:
        """The credits that its reservation holds, or must."""
        return self.price_micros if self.in_ledger else 0

    @property
    def what(self) -> task_pb2.TaskWork:
        """What is to be done."""
        return task_pb2.TaskWork.FromString(self.work)

    # Transitions.

    def create(self) -> None:
        """Begin its log."""
        self._log(task_pb2.TaskEvent(created=task_pb2.TaskCreated()), self.created_at)

    def claim(self, worker: str, now: datetime, lease_s: float) -> None:
        """A worker takes it up, until its lease ends."""
        self._from(PENDING)
        self.state = SUBMITTED
        self.attempts += 1
        self.fence += 1
        self.leased_by = worker
        self.leased_until = now + timedelta(seconds=lease_s)
        self.started_at = self.started_at or now
        self._log(task_pb2.TaskEvent(submitted=task_pb2.TaskSubmitted(attempt=self.attempts)), now)

    def begin(self, provider: str, model: str, now: datetime) -> None:
        """The work began. Again is no change: a later attempt begins too."""
        self._from(SUBMITTED, RUNNING)
        if self.state == RUNNING:
            return
        self.state = RUNNING
        self._log(task_pb2.TaskEvent(started=task_pb2.TaskStarted(provider=provider, model=model)), now)

    def put_back(self, why: str, now: datetime, *, pause_s: float = 0.0, counted: bool = True) -> None:
        """It waits again: its worker was lost, or the failure may pass.

        Without a pause it keeps its place among its account's: none that came later is before it. An attempt that is
        not `counted` (its worker was asked to stop) leaves as many attempts as before.
        """
        self._from(SUBMITTED, RUNNING)
        self.state = PENDING
        self.attempts -= 0 if counted else 1
        self.leased_by = self.leased_until = self.progress = None
        event = task_pb2.TaskEvent(requeued=task_pb2.TaskRequeued(why=why))
        if pause_s:
            self.not_before = now + timedelta(seconds=pause_s)
            event.requeued.not_before.FromDatetime(self.not_before)
        self._log(event, now)

    def succeed(self, now: datetime) -> None:
        """It ended well: from here on it has consumed its price."""
        self._from(RUNNING)
        self.consumed_micros = self.price_micros
        self._end(SUCCEEDED, now)
        event = task_pb2.TaskSucceeded(consumed_micros=self.consumed_micros)
        self._log(task_pb2.TaskEvent(succeeded=event), now)

    def fail(self, error: MoaError, now: datetime) -> None:
        """It ended without a result. Nothing is consumed."""
        self._from(PENDING, SUBMITTED, RUNNING)
        detail = detail_of(error, self.id)
        self.error = detail.SerializeToString()
        self._end(FAILED, now)
        self._log(task_pb2.TaskEvent(failed=task_pb2.TaskFailed(error=detail)), now)

    def cancel(self, now: datetime) -> None:
        """Its account ended it. Nothing is consumed."""
        self._from(PENDING, SUBMITTED, RUNNING)
        self.cancel_asked_at = self.cancel_asked_at or now
        self._end(CANCELLED, now)
        self._log(task_pb2.TaskEvent(cancelled=task_pb2.TaskCancelled()), now)

    # Notes, which leave the state as it is.

    def ask_cancel(self, now: datetime) -> None:
        """Note that its worker shall end it."""
        self._from(SUBMITTED, RUNNING)
        self.cancel_asked_at = self.cancel_asked_at or now

    def advance(self, progress: task_pb2.TaskProgress, now: datetime) -> None:
        """Note how far it is."""
        self._from(SUBMITTED, RUNNING)
        self.progress = progress.SerializeToString()
        self._log(task_pb2.TaskEvent(progress=progress), now)

    def deliver(self, output: task_pb2.TaskOutput, now: datetime) -> None:
        """Note that an output is stored."""
        self._from(RUNNING)
        self._log(task_pb2.TaskEvent(output=output), now)

    def see(self, seen: desk_pb2.Seen, now: datetime) -> None:
        """Note what the desk's vision saw."""
        self._from(RUNNING)
        self.desk = task_pb2.DeskResult(seen=seen).SerializeToString()
        self._log(task_pb2.TaskEvent(seen=seen), now)

    def find(self, item: desk_pb2.Item, now: datetime) -> None:
        """Note what shops offer for an item. An item that was found before (by a lost attempt) is replaced."""
        self._from(RUNNING)
        result = task_pb2.DeskResult.FromString(self.desk or b"")
        kept = [known for known in result.items if known.name != item.name]
        del result.items[:]
        result.items.extend([*kept, item])
        self.desk = result.SerializeToString()
        self._log(task_pb2.TaskEvent(item=item), now)

    def skip(self, why: desk_pb2.SkipReason.ValueType) -> None:
        """Note why the desk made no image."""
        self._from(RUNNING)
        result = task_pb2.DeskResult.FromString(self.desk or b"")
        result.skipped = why
        self.desk = result.SerializeToString()

    # How.

    def _from(self, *states: task_pb2.TaskState.ValueType) -> None:
        if self.state not in states:
            name = task_pb2.TaskState.Name(self.state).removeprefix("TASK_STATE_").lower()
            raise WrongState(f"the task is {name}")

    def _end(self, state: task_pb2.TaskState.ValueType, now: datetime) -> None:
        self.state = state
        self.ended_at = now
        self.leased_by = self.leased_until = None

    def _log(self, event: task_pb2.TaskEvent, now: datetime) -> None:
        self.last_sequence += 1
        event.sequence = self.last_sequence
        event.at.FromDatetime(now)
        self.fresh.append(event)


def error_of(task: Task) -> error_pb2.ErrorDetail | None:
    """Return why a task failed."""
    return error_pb2.ErrorDetail.FromString(task.error) if task.error else None
