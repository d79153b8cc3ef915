"""What this process may do of the pace of one account or key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from moa.quota.v1 import quota_pb2
from services.common.errors import MoaError, QuotaExhausted, RateLimited, Unavailable
from services.quota_client._part import Part, exact_of, limited
from services.quota_client.amounts import NOTHING, Amount

ACTIVE_S: Final = 10.0
_IDLE_S: Final = 2.0
_PEAK_S: Final = 1.0
_REFUSAL_S: Final = 0.25
_ALONE_S: Final = 5.0
_KEPT: Final = 8
"""What part of the slots a process may keep at most for requests that are yet to come, as auth gives ahead of need."""


class Share:
    """What this process may do of the pace of one account or key.

    Args:
        subject: The account's id or the key's.
        what: Which of the two it is, for people.
        ended: Told when requests have ended whose slots others may need.
    """

    __slots__ = (
        "_alone_at",
        "_ended",
        "_peak_at",
        "a_minute",
        "at_once",
        "free_starts",
        "holders",
        "key_id",
        "lock",
        "parts",
        "peak",
        "refused_until",
        "renew_after",
        "rests_until",
        "running",
        "slots",
        "slots_until",
        "starts",
        "subject",
        "told_starts",
        "upstream",
        "used_at",
        "wait_until",
        "waiting",
        "what",
    )

    def __init__(self, subject: str, what: str, now: float, ended: Callable[[Share], None] = lambda _: None) -> None:
        self.subject = subject
        self.what = what
        self.key_id = ""
        self.a_minute = 0
        self.at_once = 0
        self.starts = 0.0
        self.parts: tuple[Part, ...] = ()
        """What it limits beside requests."""
        self.slots = 0
        self.slots_until = 0.0
        self.running = 0
        self.peak = 0
        self.holders = 1
        self.free_starts = 0
        self.used_at = now
        self.renew_after = 0.0
        self.refused_until = 0.0
        self.wait_until = 0.0
        self.rests_until = 0.0
        self.waiting = 0
        self.lock = asyncio.Lock()
        self._ended = ended
        self._peak_at = now
        self._alone_at = 0.0
        self.upstream: quota_pb2.Pace | None = None
        """The pace of a provider's key, which auth does not know."""
        self.told_starts: int | None = None
        """Requests that the provider says are left, until auth has heard of it; None: it did not say."""

    def limit(self, pace: quota_pb2.Pace) -> None:
        """Take the limits over."""
        self.a_minute, self.at_once = pace.requests_per_minute, pace.concurrent_requests
        self.parts = limited(self.parts, pace)

    def part(self, name: str) -> Part | None:
        """Return what it limits of a dimension; None: it does not."""
        return next((part for part in self.parts if part.counted.name == name), None)

    def reported(self, *, requests: int | None, tokens: int | None) -> None:
        """Take what a provider says is left: that counts, here and at auth, whatever was reckoned."""
        if requests is not None:
            self.starts, self.told_starts = min(self.starts, float(requests)), requests
        if tokens is not None and (part := self.part("tokens")) is not None:
            part.reported(tokens)

    def rest(self, until: float) -> None:
        """Let nothing begin until then, whatever is left."""
        self.rests_until = self.wait_until = max(self.wait_until, until)

    def ready(self, now: float, need: Amount) -> bool:
        """Return whether a request may begin; raise RateLimited where that was refused a moment ago."""
        if now < self.rests_until:
            raise self.refusal(now, need)
        if self._room(now, need):
            return True
        if now < self.refused_until and all(part.was_refused(need) for part in self.parts):
            raise self.refusal(now, need)
        return False

    def begin(self, now: float, need: Amount) -> None:
        """Count a request that begins, and may come to so much."""
        if self.a_minute:
            self.starts -= 1
        for part in self.parts:
            part.begin(need)
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.used_at = now

    def end(self, set_aside: Amount = NOTHING, used: Amount = NOTHING) -> None:
        """Count a request that ended, and what it used of what it might."""
        self.running -= 1
        self.changed(set_aside, used)
        if self.at_once:
            # There is room again; a refusal for the rate's sake is asked about once more.
            self.refused_until = 0.0
            if self.keeps_too_many:
                self._ended(self)

    def changed(self, set_aside: Amount, used: Amount) -> None:
        """Set as much aside for a request as it may use now, or did."""
        if self.parts and set_aside != used:
            for part in self.parts:
                part.changed(set_aside, used)
            self.refused_until = 0.0

    def grow(self, now: float, more: Amount) -> bool:
        """Set more aside for a request that runs, of what is counted exactly, and tell so."""
        more = exact_of(more)
        if not all(part.has(more) for part in self.parts):
            return False
        for part in self.parts:
            part.begin(more)
        self.used_at = now
        return True

    def fitting(self, need: Amount) -> Amount:
        """Return as much of a need as a minute ever has."""
        for part in self.parts:
            if part.never_has(need):
                need = need._replace(**{part.counted.name: part.a_minute})
        return need

    def never(self, need: Amount) -> QuotaExhausted | None:
        """Return the refusal of what no minute has; None for what one may have."""
        for part in self.parts:
            if part.never_has(need):
                most = f"at most {part.shown(part.a_minute)} a minute for {self.what}"
                return QuotaExhausted(
                    f"{most}, and this request may come to {part.shown(need[part.counted.position])}; ask for less"
                )
        return None

    def refusal(self, now: float, need: Amount) -> MoaError:
        """Return the refusal of a request that may not begin."""
        if self.at_once and self.running >= self.slots:
            return RateLimited(f"at most {self.at_once} requests at once for {self.what}", retry_after_s=1)
        wait_s = max(self.wait_until - now, _REFUSAL_S)
        is_lacking = any(not part.has(need) for part in self.parts)
        if not is_lacking or (self.a_minute and self.starts < 1 and not self.free_starts):
            return RateLimited(f"at most {self.a_minute} requests a minute for {self.what}", retry_after_s=wait_s)
        return self.lacks(now, need)

    def lacks(self, now: float, need: Amount) -> MoaError:
        """Return the refusal of what there is too little of in this minute."""
        wait_s = max(self.wait_until - now, _REFUSAL_S)
        lacking = next((part for part in self.parts if not part.has(need)), self.parts[0])
        if self._alone_at and lacking.counted.exact:
            return Unavailable("accounts cannot be reached now; try again", retry_after_s=1)
        most = f"at most {lacking.shown(lacking.a_minute)} a minute for {self.what}"
        wanted = lacking.shown(need[lacking.counted.position])
        return RateLimited(f"{most}, and this request may come to {wanted}", retry_after_s=wait_s)

    def take(self, told: quota_pb2.PaceShare, asked_at: float, *, need: Amount | None) -> None:
        """Take over what auth gave; a request of so much waits for it, None: none does."""
        lasts_s = told.expires_in.ToMilliseconds() / 1000
        self.starts += told.starts
        self.slots = told.slots
        self.slots_until = asked_at + lasts_s
        self.renew_after = asked_at + lasts_s / 4
        self.holders = max(1, told.holders)
        self.free_starts = told.free_starts
        for part in self.parts:
            part.take(told)
        self._alone_at = 0.0
        if need is not None and not self._room(asked_at, need):
            for part in self.parts:
                part.refused = need[part.counted.position]
            wait_s = told.wait.ToMilliseconds() / 1000
            self.wait_until = asked_at + wait_s
            self.refused_until = asked_at + min(max(wait_s, _REFUSAL_S), 1.0)

    def _room(self, now: float, need: Amount) -> bool:
        return (
            (not self.a_minute or self.starts >= 1)
            and (not self.at_once or (self.running < self.slots and now < self.slots_until))
            and (not self.parts or all(part.has(need) for part in self.parts))
        )

    def alone(self, now: float, unheard: quota_pb2.PaceNeed) -> None:
        """Go on while nobody can divide: with an equal part of the limit, as far as is known of others.

        What was used beyond what was set aside, and auth was not told of, is still owed.
        """
        passed_s = now - self._alone_at if self._alone_at else None
        if self.at_once:
            self.slots = max(self.slots, math.ceil(self.at_once / self.holders))
            self.slots_until = now + _ALONE_S
        if self.a_minute:
            share = max(1.0, self.a_minute / self.holders)
            if passed_s is not None:
                self.starts = min(share, self.starts + passed_s * share / 60)
            self.wait_until = now + max(0.0, 1 - self.starts) * 60 / share
        for part in self.parts:
            part.unheard(unheard)
            part.alone(max(1.0, part.a_minute / self.holders), passed_s)
            part.refused = 0
            self.wait_until = max(self.wait_until, now + _REFUSAL_S)
        self._alone_at = now
        self.refused_until = now + _REFUSAL_S

    @property
    def keeps_too_many(self) -> bool:
        """Whether there are more slots without a request than may wait for one: of few none may."""
        return self.slots - self.running > self.at_once // _KEPT

    @property
    def full(self) -> bool:
        """Whether every slot is in use."""
        return bool(self.at_once) and self.running >= self.slots

    def forget_refusal(self) -> None:
        """Have the next request ask again."""
        self.refused_until = 0.0

    def spare(self) -> quota_pb2.PaceNeed:
        """Return what gives back the slots that are too many, which count as gone from here on."""
        self.slots = self.running + self.at_once // _KEPT
        return self._asked(running=self.running, slots=self.slots, want_slots=self.slots)

    def due(self, now: float) -> quota_pb2.PaceNeed | None:
        """Return what there is to renew or return, which counts as gone from here on; None when there is nothing."""
        if now - self._peak_at > _PEAK_S:
            self._peak_at, self.peak = now, self.running
        idle_s = now - self.used_at
        returned = int(self.starts) if idle_s > _IDLE_S and not self._alone_at else 0
        over = self._over(all_of_them=idle_s > _IDLE_S)
        spare = self.slots - max(self.running, self.peak)
        renews = now > self.renew_after and (self.running > 0 or idle_s < ACTIVE_S)
        if not returned and not any(over) and spare <= 0 and not renews:
            return None
        self.starts -= returned
        self.slots = min(self.slots, max(self.running, self.peak))
        return self._asked(
            over,
            returned_starts=returned,
            running=self.running,
            slots=self.slots,
            want_slots=self.slots,
        )

    def _over(self, *, all_of_them: bool) -> list[int]:
        """Return what goes back of each part, which counts as gone."""
        # What it took alone is nobody's to get back; what it owes is told as soon as it can be.
        all_of_them = all_of_them and not self._alone_at
        return [part.over(all_of_them=all_of_them) for part in self.parts]

    def need(self, need: Amount) -> quota_pb2.PaceNeed:
        """Return what is needed for one more request, and what would spare the next ones a call."""
        return self._asked(
            self._over(all_of_them=False),
            need,
            starts=0 if self.starts >= 1 else 1,
            want_starts=0 if self.starts >= 1 else max(self.waiting, self.a_minute),
            running=self.running,
            slots=self.running + 1,
            want_slots=max(self.running + self.waiting, self.at_once),
        )

    def need_more(self, more: Amount) -> quota_pb2.PaceNeed:
        """Return what is needed for a request that runs."""
        over = self._over(all_of_them=False)
        return self._asked(over, exact_of(more), running=self.running, slots=self.slots, want_slots=self.slots)

    def _asked(self, over: Sequence[int] = (), more: Amount = NOTHING, **needs: Any) -> quota_pb2.PaceNeed:
        need = quota_pb2.PaceNeed(key_id=self.key_id, subject=self.subject, **needs)
        for part, returned in zip(self.parts, over, strict=False):
            part.ask(need, returned=returned, lacking=part.lacking(more), upstream=self.upstream is not None)
        if self.upstream is not None:
            need.upstream.CopyFrom(self.upstream)
            if self.told_starts is not None:
                need.most_starts = self.told_starts
            self.told_starts = None
        return need


def entered(shares: Sequence[Share], now: float, need: Amount = NOTHING) -> bool:
    """Begin a request if that needs no call, and tell so. Raises RateLimited where it was refused a moment ago."""
    for share in shares:
        if not share.ready(now, need):
            return False
    begin(shares, now, need)
    return True


def begin(shares: Iterable[Share], now: float, need: Amount) -> None:
    """Count a request that begins, and may come to so much."""
    for share in shares:
        share.begin(now, need)
