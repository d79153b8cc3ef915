"""The attempts at one request: its targets are asked in turn until one begins to answer.

Each target once, without a pause; then, where a failure may pass in a moment, the same ones again after one. One
reservation pays for all of it. `docs/routing.md` tells callers and operators what this comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic

from moa.common.v1 import error_pb2, usage_pb2
from services.catalogue import Model
from services.common import logs
from services.common.errors import ContextTooLong, MoaError
from services.router import metrics
from services.router.domain.caller import unheard
from services.router.domain.failures import (
    Course,
    HeldBack,
    Restarting,
    asks_twice,
    course_after,
    is_sick,
    label_of,
    may_have_worked,
    most_useful,
    tell_not_to_retry,
    was_left,
)
from services.router.domain.hedging import Unbooked, hedged
from services.router.domain.ports import M, MessageStream, Reservation
from services.router.domain.terms import RETRIES, Ask, Begun, Terms, counted_for, first_message
from services.router.traffic import TRAFFIC

BACK_OFF_S: Final = 0.5
"""The first pause before that at most, and half of it at least; the second is twice as long."""
HASTE_S: Final = 2.0
"""The target that was asked for is asked once more before its fallbacks, if that need not wait for longer."""
LOOK_S: Final = 0.1
"""How often is looked whether a target's process is back that is being started again."""
LONGEST_WAIT_S: Final = 5.0
"""A target that asks to be left alone for longer is not waited for: the caller is told instead."""

_log = logs.get("attempts")


class Attempts(Generic[M]):
    """The attempts at one request.

    Args:
        asked: The model that was asked for.
        others: Gives who may answer in its place, in order; called once, when it is needed.
        terms: On what terms.
        outgrown: Why the prompt plainly does not fit `asked`: only models with a longer context are asked then.
        stake: Returns what a call costs its operator at least, should it be given up.
    """

    def __init__(
        self,
        asked: Model,
        others: Callable[[], Sequence[Model]],
        *,
        terms: Terms,
        outgrown: ContextTooLong | None = None,
        stake: Callable[[], usage_pb2.Usage],
    ) -> None:
        self.asked = asked
        self.reservation = terms.reservation
        """What pays for the call that is running, or would for the next."""
        self.count = 0
        """How many calls were made."""
        self._others = others
        self._terms = terms
        self._patience = terms.patience
        self._longer_than = asked.context_tokens if outgrown else None
        """Only models with a longer context than this are asked."""
        self._chain: Sequence[Model] | None = None
        self._tried: set[str] = set()
        self._asked_times: dict[str, int] = {}
        self._errors: list[MoaError] = [outgrown] if outgrown else []
        self._restarting: dict[str, Restarting] = {}
        """By model, of those that could not be asked since: what they say later is what the caller is told."""
        self._again: list[tuple[float, Model]] = []
        self._left = False
        self._lived = False
        """Whether the target that was asked last showed that it works before it failed."""
        self._stake = stake
        self._asking: Model | None = None
        """Whose first message is awaited."""
        self._is_able: Callable[[Model], bool] | None = None

    async def first(self, ask: Ask[M]) -> Begun[M]:
        """As `begin`; where none begins, book that nothing was consumed.

        Where the caller left while a target was asked, only its backend knows whether the work had begun.
        """
        try:
            return await self.begin(ask)
        except BaseException as error:
            if self._terms.watch is not None:
                self._terms.watch.close()
            left = self._asking
            if left is not None and not isinstance(error, Exception):
                then = counted_for(left, self.reservation.team_id)
                if self._terms.recording is not None:
                    then = self._terms.recording.booked_by(self.reservation, then)
                self.reservation.defer(usage=usage_pb2.Usage(), provider=left.provider, model=left.id, then=then)
            elif isinstance(error, MoaError) and not self._left:
                self.reservation.release()
            else:
                self.reservation.void()
            raise

    async def begin(self, ask: Ask[M], *, able: Callable[[Model], bool] | None = None) -> Begun[M]:
        """Return the first answer that begins, of targets that were not asked before and are `able`, if that is asked.

        Raises the MoaError that helps the caller most when none does.
        """
        self._again, self._is_able = [], able
        targets: Iterable[Model] = self._admitted()
        retry = 0
        while True:
            asked = self.count
            for model in targets:
                while True:
                    try:
                        return await self._asked(model, ask)
                    except MoaError as error:
                        self.gave_up(model, error)
                        if self.failed(model, error, retry) is Course.TELL:
                            raise
                    if (at := self._at_once(model)) is None:
                        break
                    await self._pause_until(at)
            # To wait for a process that is being started again is no try.
            retry += self.count > asked
            if retry > self._terms.retries or not (targets := await self._rested()):
                break
        failure = most_useful([*self._errors, *self._restarting.values()])
        tell_not_to_retry(failure)
        raise failure

    def failed(self, model: Model, error: MoaError, retry: int = RETRIES) -> Course:
        """Note that a target failed, and tell what to do."""
        if isinstance(error, Restarting):
            return self._await_restart(model, error)
        self._restarting.pop(model.full_id, None)
        self._left = was_left(error)
        if self._terms.recording is not None:
            self._terms.recording.failed(model, error)
        # Its frames hold these attempts, and so the request: it would live as long as the collector does not come.
        self._errors.append(error.with_traceback(None))
        if not isinstance(error, HeldBack):
            # Who was not asked is neither sick nor well.
            self._patience.breakers.failed(model, error)
        if (watch := self._terms.watch) is not None:
            watch.ended(model, silent=error.reason == error_pb2.REASON_UPSTREAM_TIMEOUT)
        course = course_after(error, asked_for=self._is_asked_for(model))
        reason = label_of(error)
        metrics.ATTEMPTS_FAILED.labels(model.provider, model.label, reason).inc()
        if is_sick(error):
            TRAFFIC.failed("" if watch is None else watch.route, model.provider, model.label)
        if course is Course.LARGER:
            self._longer_than = max(self._longer_than or 0, model.context_tokens)
        elif course is Course.AGAIN and self._may_ask_again(model, error, retry):
            self._put_off(model, error, retry)
        if course is not Course.TELL:
            _log.info(
                "attempt.failed",
                request_id=self._terms.request_id,
                provider=model.provider,
                model=model.id,
                reason=reason,
                attempt=self.count,
            )
        return course

    def _await_restart(self, model: Model, error: Restarting) -> Course:
        """Note that a target was not asked, because nobody was there: others are asked, then it is looked for again."""
        if model.full_id not in self._restarting:
            self._restarting[model.full_id] = error.with_traceback(None)
            _log.info("attempt.waits", request_id=self._terms.request_id, provider=model.provider, model=model.id)
        at = self._patience.clock() + LOOK_S
        if at < self._terms.until:
            self._again.append((at, model))
        return Course.AGAIN

    def _may_ask_again(self, model: Model, error: MoaError, retry: int) -> bool:
        if retry >= self._terms.retries or self._asked_times.get(model.full_id, 0) > self._terms.retries:
            return False
        worked = self._terms.whole or self._lived
        return not self._patience.breakers.is_open(model) and not (worked and asks_twice(error))

    def _at_once(self, model: Model) -> float | None:
        """Return when to ask a target again before any other, by the clock; None where the others come first.

        Only the one that was asked for, once, and only where there are others: a lone one is asked again anyhow.
        """
        put_off = [at for at, other in self._again if other is model]
        if model is not self.asked or not self._terms.retries_first or self._asked_times.get(model.full_id) != 1:
            return None
        if not put_off or put_off[0] > self._patience.clock() + HASTE_S or not any(self._able()):
            return None
        self._again = [(at, other) for at, other in self._again if other is not model]
        return put_off[0]

    async def _pause_until(self, at: float) -> None:
        await self._patience.pause(max(0.0, at - self._patience.clock()))

    def gave_up(self, model: Model, error: MoaError) -> None:
        """Note that nobody is charged for a call that failed, though its provider may bill for it."""
        if may_have_worked(error):
            metrics.unbilled(model, label_of(error), self.stake)

    def may_go_on(self, model: Model, error: MoaError) -> bool:
        """Return whether another target may go on after a failure in the middle of an answer."""
        return course_after(error, asked_for=self._is_asked_for(model)) in (Course.AGAIN, Course.ONWARD)

    def _is_asked_for(self, model: Model) -> bool:
        """Return whether the caller asked for a target by its name, and not for a virtual model."""
        return model is self.asked and self._terms.watch is None

    def forgive(self, model: Model) -> None:
        """Let a target be asked again, once it is its turn."""
        self._tried.discard(model.full_id)

    @property
    def stake(self) -> usage_pb2.Usage:
        """What a call costs its operator at least, should it be given up."""
        return self._stake()

    def let_go(self) -> None:
        """Let go of the request: nobody is asked any more."""
        self._others, self._chain, self._is_able, self._stake = list, (), None, usage_pb2.Usage
        if self._terms.watch is not None:
            self._terms.watch.close()

    def finished(self, model: Model, usage: usage_pb2.Usage) -> None:
        """Note that a target answered to the end."""
        self._patience.breakers.finished(model)
        if self._terms.watch is not None:
            self._terms.watch.finished(model, usage)

    async def _asked(self, model: Model, ask: Ask[M]) -> Begun[M]:
        if self._left:
            # The call before may still be running at its end, under the id that it was given.
            self.reservation, self._left = self.reservation.renewed(), False
        stream = self._open(model, ask, self.reservation)
        self._asking, self._lived = model, False
        watch = self._terms.watch
        try:
            if watch is not None and (after_s := watch.hedge_after_s(model)) is not None:
                asked: Begun[Any] = Begun(model, stream, first_message(stream, self._heard))
                begun = await hedged(self, watch, asked, ask, after_s)
            else:
                begun = Begun(model, stream, await first_message(stream, self._heard))
        except Exception:
            self._asking = None
            raise
        self._asking = None
        self._patience.breakers.began(begun.model)
        if watch is not None:
            watch.began(begun.model)
        elif model is not self.asked:
            metrics.FALLBACKS.labels(self.asked.provider, self.asked.label, model.provider, model.label).inc()
        return begun

    def _open(self, model: Model, ask: Ask[M], paying: Reservation) -> MessageStream[M]:
        name = model.full_id
        self._tried.add(name)
        stream = ask(model, paying)
        self.count += 1
        self._asked_times[name] = self._asked_times.get(name, 0) + 1
        if self._terms.watch is not None:
            self._terms.watch.asked(model)
        if self._terms.recording is not None:
            self._terms.recording.asking(model)
        return stream

    async def silence(self, after_s: float) -> None:
        """Wait until a target has been silent for so long."""
        await self._patience.pause(after_s)

    def open_spare(self, ask: Ask[M], may: Callable[[], bool]) -> Begun[Any] | None:
        """Ask another target beside the one that is asked, unless that one shows that it works; None: none is.

        No reservation is told to whoever is asked: it books nothing for the call.

        Args:
            may: Returns whether that is done now; called where there is another.
        """
        if self._lived:
            return None
        for other in self._able():
            if self._patience.breakers.is_open(other):
                continue
            if not may():
                return None
            try:
                stream = self._open(other, ask, Unbooked(self.reservation))
            except MoaError as error:
                self.failed(other, error)
                return None
            return Begun(other, stream, first_message(stream, unheard))
        return None

    def renew_reservation(self) -> None:
        """Go on under another id: the call that pays was left, and what is heard of it is void."""
        self.reservation, self._left = self.reservation.renewed(), False

    def _heard(self) -> None:
        self._lived = True
        self._terms.heard()

    def _admitted(self) -> Iterator[Model]:
        """Return those who may answer and do not rest; all, where all do: a try is better than a sure refusal."""
        result = False
        for model in self._able():
            if self._patience.breakers.admits(model):
                result = True
                yield model
        if not result:
            yield from self._able()

    def _able(self) -> Iterator[Model]:
        if self._fits(self.asked):
            yield self.asked
        if self._chain is None:
            self._chain = self._others()
        yield from filter(self._fits, self._chain)

    def _fits(self, model: Model) -> bool:
        if model.full_id in self._tried or (self._is_able is not None and not self._is_able(model)):
            return False
        return self._longer_than is None or model.context_tokens > self._longer_than

    def _put_off(self, model: Model, error: MoaError, retry: int) -> None:
        """Keep a target in mind for another try, if that may come soon enough."""
        wait_s = error.retry_after_s or 0.0
        if wait_s > LONGEST_WAIT_S:
            return
        if error.reason == error_pb2.REASON_UPSTREAM_RATE_LIMITED and error.retry_after_s is None:
            return
        back_off_s = BACK_OFF_S * 2**retry * (1 + self._patience.jitter()) / 2
        at = self._patience.clock() + max(wait_s, back_off_s)
        if at < self._terms.until:
            self._again.append((at, model))

    async def _rested(self) -> list[Model]:
        """Wait for targets that may be asked again, and give those whose time has come; none when there are none."""
        if not self._again:
            return []
        at = min(at for at, _ in self._again)
        await self._pause_until(at)
        due = [model for ready, model in self._again if ready <= at]
        self._again = [(ready, model) for ready, model in self._again if ready > at]
        return due
