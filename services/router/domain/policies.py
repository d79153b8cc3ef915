"""The operator's policies over requests and answers: in their declared order, each within its time, failing as it says.

A router without policies makes no call for them: `Operations` and `Answer` have None in the place of what is here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from services.common import logs
from services.common.errors import ContentPolicy, MoaError, Unavailable
from services.policies import Asked, Change, Hook, Refuse, Replace, Stop, Watch
from services.router import metrics
from services.router.domain.held_text import HeldText
from services.router.domain.ports import M

_SHOWN: Final = frozenset(("text", "reasoning", "tool_call", "image", "progress"))
"""Events that a policy is shown: those with something that a model made."""

_WITH_EVENTS: Final = frozenset(("text", "image"))
"""Operations whose answers are events: vectors are not judged."""

_log = logs.get("policies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A hook, as a row declares it."""

    name: str
    hook: Hook
    deadline_s: float
    """How long it may take with one request or event."""
    fails_open: bool
    """Whether what it cannot judge passes."""
    operations: frozenset[str]
    """What it judges."""
    judges_requests: bool
    judges_answers: bool


class Stopped(Exception):
    """An answer that a policy ends here."""

    def __init__(self, error: MoaError, events: Sequence[Any] = ()) -> None:
        super().__init__(error.message)
        self.error = error
        """What the caller is told where an answer has no other way to end early."""
        self.events = events
        """What goes on all the same."""


class Policies:
    """All policies, in their order."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._before = [one for one in policies if one.judges_requests]
        self._after = [one for one in policies if one.judges_answers]

    async def before(self, asked: Asked, request: Any) -> Any:
        """Return the request to go on with, which is the same object where nothing was changed.

        Raises ContentPolicy where one refuses it, Unavailable where one that must judge it could not.
        """
        for policy in self._before:
            if asked.operation not in policy.operations:
                continue
            try:
                verdict = await within(policy, policy.hook.before, asked, request)
                _check_request_verdict(verdict, request)
            except Exception as error:
                _failed(policy, asked, error)
                continue
            if isinstance(verdict, Refuse):
                _judged(policy, asked, "refuse")
                raise ContentPolicy(verdict.reason)
            if isinstance(verdict, Change):
                _judged(policy, asked, "change")
                request = verdict.request
        return request

    def screen(self, asked: Asked, request: Any) -> Screen[Any] | None:
        """Return what judges the answer to a request; None where nothing has to. Raises Unavailable as `before`."""
        if asked.operation not in _WITH_EVENTS:
            return None
        watching: list[_Watching] = []
        for policy in self._after:
            if asked.operation not in policy.operations:
                continue
            try:
                watch = policy.hook.watch(asked, request)
                if watch is not None and not isinstance(watch, Watch):
                    raise TypeError(f"what judges an answer was a {type(watch).__name__}")
            except Exception as error:
                _failed(policy, asked, error)
                continue
            if watch is not None:
                watching.append(_Watching(policy, asked, watch))
        return Screen(watching) if watching else None


class Screen(Generic[M]):
    """What judges the messages of one answer."""

    def __init__(self, watching: Sequence[_Watching]) -> None:
        self._watching = watching

    async def take(self, message: M) -> None:
        """Leave of a message's events what is to go on, with what was held back before it. Raises Stopped.

        The events that went before the one that stopped it are left in the message then.
        """
        events = list(message.events)
        del message.events[:]
        for event in events:
            await self._on(0, event, message)

    async def _on(self, stage: int, event: Any, message: M) -> None:
        """Take an event through the policies from this one on, and put what comes of it into the message."""
        if stage == len(self._watching):
            message.events.append(event)
            return
        try:
            async for passed in self._watching[stage].passed(event):
                await self._on(stage + 1, passed, message)
        except Stopped as stopped:
            for passed in stopped.events:
                await self._on(stage + 1, passed, message)
            stopped.events = ()
            raise

    def forget(self) -> None:
        """Drop what is held back: the answer goes on from what was delivered, at another target."""
        for each in self._watching:
            each.forget()

    def close(self) -> None:
        """Let go of what policies hold for the answer."""
        for each in self._watching:
            each.close()


class _Watching:
    """One policy over one answer."""

    def __init__(self, policy: Policy, asked: Asked, watch: Watch) -> None:
        self._policy = policy
        self._asked = asked
        self._gone = False
        """Whether it failed, and lets all pass from then on."""
        self.watch = watch
        self.held = HeldText(policy.hook.holds)

    def close(self) -> None:
        """Let go of what the policy holds; where it fails at that, the answer is over all the same."""
        try:
            self.watch.close()
        except Exception:
            _log.exception("policy.not_closed", policy=self._policy.name, request_id=self._asked.request_id)

    def forget(self) -> None:
        """Drop what is held back."""
        self.held = HeldText(self._policy.hook.holds)

    async def passed(self, event: Any) -> AsyncIterator[Any]:
        """Yield what goes on of an event, behind what was held back before it, which has been judged."""
        kind = event.WhichOneof("event")
        for held in self.held.due_before(event, kind):
            yield held
        if kind not in _SHOWN:
            yield event
            return
        whole = self.held.joined(event, kind)
        if self._gone:
            yield whole
            return
        *firsts, last = await self._judged(whole) or (None,)
        for first in firsts:
            yield first
        if last is not None and (front := last if self._gone else self.held.split(last)) is not None:
            yield front

    async def _judged(self, event: Any) -> Sequence[Any]:
        try:
            verdict = await within(self._policy, self.watch.after, event)
            _check_event_verdict(verdict, event)
        except Exception as error:
            self._gone = True
            try:
                _failed(self._policy, self._asked, error)
            except MoaError as closed:
                raise Stopped(closed) from None
            return (event,)
        if isinstance(verdict, Stop):
            _judged(self._policy, self._asked, "stop")
            raise Stopped(ContentPolicy(verdict.reason), verdict.events)
        if isinstance(verdict, Replace):
            _judged(self._policy, self._asked, "change")
            return verdict.events
        return (event,)


async def within(policy: Policy, judge: Callable[..., Any], *what: Any) -> Any:
    """Return a policy's verdict, and measure what it took. Raises TimeoutError where it is not there in its time."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(policy.deadline_s):
            return await judge(*what)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody left: what the policy waits for was cancelled, by itself.
        raise RuntimeError("what a policy waits for was cancelled") from None
    finally:
        metrics.POLICY_SECONDS.labels(policy.name).observe(time.perf_counter() - began)


def _check_request_verdict(verdict: Any, request: Any) -> None:
    """Raise TypeError for what is no verdict on a request: it would pass for a permission."""
    if isinstance(verdict, Change):
        if type(verdict.request) is not type(request):
            raise TypeError(f"a request became a {type(verdict.request).__name__}")
    elif isinstance(verdict, Refuse):
        _check_reason(verdict.reason)
    elif verdict is not None:
        raise TypeError(f"a verdict on a request was a {type(verdict).__name__}")


def _check_event_verdict(verdict: Any, event: Any) -> None:
    """Raise TypeError for what is no verdict on an event, and for events that are not a policy's to make.

    Who answers, what it counts and how it ends is the answer's own: what a caller pays follows from it.
    """
    if verdict is None:
        return
    if not isinstance(verdict, Replace | Stop):
        raise TypeError(f"a verdict on an event was a {type(verdict).__name__}")
    if isinstance(verdict, Stop):
        _check_reason(verdict.reason)
    for made in verdict.events:
        if type(made) is not type(event) or made.WhichOneof("event") not in _SHOWN:
            raise TypeError(f"an event became a {type(made).__name__} that no policy is shown")


def _check_reason(reason: Any) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"a reason was a {type(reason).__name__}")


def _judged(policy: Policy, asked: Asked, verdict: str) -> None:
    metrics.POLICY_VERDICTS.labels(policy.name, verdict).inc()
    _log.info(
        "policy.judged", policy=policy.name, verdict=verdict, request_id=asked.request_id, account=asked.account_id
    )


def _failed(policy: Policy, asked: Asked, error: Exception) -> None:
    """Note that a policy could not judge. Raises Unavailable where nothing passes unjudged."""
    metrics.POLICY_VERDICTS.labels(policy.name, "failed").inc()
    _log.warning(
        "policy.failed",
        policy=policy.name,
        request_id=asked.request_id,
        why="deadline" if isinstance(error, TimeoutError) else type(error).__name__,
        passes=policy.fails_open,
    )
    if not policy.fails_open:
        raise Unavailable("a policy of this gateway could not judge this request; try again", retry_after_s=1) from None
