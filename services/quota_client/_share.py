"""What this process may do of the pace of one account or key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from moa.quota.v1 import quota_pb2
from services.common.errors import RateLimited

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
        "_most_tokens",
        "_peak_at",
        "_refused_tokens",
        "a_minute",
        "at_once",
        "free_starts",
        "free_tokens",
        "holders",
        "key_id",
        "lock",
        "peak",
        "refused_until",
        "renew_after",
        "rests_until",
        "running",
        "slots",
        "slots_until",
        "starts",
        "subject",
        "tokens",
        "tokens_a_minute",
        "told_starts",
        "told_tokens",
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
        self.tokens_a_minute = 0
        self.starts = 0.0
        self.tokens = 0.0
        """Tokens that requests which begin here may set aside; below zero, what was used beyond that."""
        self.slots = 0
        self.slots_until = 0.0
        self.running = 0
        self.peak = 0
        self.holders = 1
        self.free_starts = 0
        self.free_tokens = 0
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
        self._most_tokens = 0
        """Of one request; of a larger one no more is set aside."""
        self._refused_tokens = 0
        self.upstream: quota_pb2.Pace | None = None
        """The pace of a provider's key, which auth does not know."""
        self.told_starts: int | None = None
        """Requests that the provider says are left, until auth has heard of it; None: it did not say."""
        self.told_tokens: int | None = None

    def limit(self, pace: quota_pb2.Pace) -> None:
        """Take the limits over."""
        self.a_minute, self.at_once = pace.requests_per_minute, pace.concurrent_requests
        if self.tokens_a_minute != pace.tokens_per_minute:
            self.tokens_a_minute = self._most_tokens = pace.tokens_per_minute
            self.tokens = min(self.tokens, pace.tokens_per_minute)

    def reported(self, *, requests: int | None, tokens: int | None) -> None:
        """Take what a provider says is left: that counts, here and at auth, whatever was reckoned."""
        if requests is not None:
            self.starts, self.told_starts = min(self.starts, float(requests)), requests
        if tokens is not None:
            self.tokens, self.told_tokens = min(self.tokens, float(tokens)), tokens

    def rest(self, until: float) -> None:
        """Let nothing begin until then, whatever is left."""
        self.rests_until = self.wait_until = max(self.wait_until, until)

    def ready(self, now: float, tokens: int) -> bool:
        """Return whether a request may begin; raise RateLimited where that was refused a moment ago."""
        if now < self.rests_until:
            raise self.refusal(now, tokens)
        if self._room(now, tokens):
            return True
        if now < self.refused_until and tokens >= self._refused_tokens:
            raise self.refusal(now, tokens)
        return False

    def begin(self, now: float, tokens: int) -> None:
        """Count a request that begins, and may come to so many tokens."""
        if self.a_minute:
            self.starts -= 1
        if self.tokens_a_minute:
            self.tokens -= min(tokens, self._most_tokens)
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.used_at = now

    def end(self, set_aside: int = 0, used: int = 0) -> None:
        """Count a request that ended, and what it used of the tokens that it might."""
        self.running -= 1
        self.changed(set_aside, used)
        if self.at_once:
            # There is room again; a refusal for the rate's sake is asked about once more.
            self.refused_until = 0.0
            if self.keeps_too_many:
                self._ended(self)

    def changed(self, set_aside: int, used: int) -> None:
        """Set as many tokens aside for a request as it may use now, or did."""
        if self.tokens_a_minute and set_aside != used:
            self.tokens += min(set_aside, self._most_tokens) - used
            self.refused_until = 0.0

    def refusal(self, now: float, tokens: int) -> RateLimited:
        """Return the refusal of a request that may not begin."""
        if self.at_once and self.running >= self.slots:
            return RateLimited(f"at most {self.at_once} requests at once for {self.what}", retry_after_s=1)
        wait_s = max(self.wait_until - now, _REFUSAL_S)
        if self._has_tokens(tokens) or (self.a_minute and self.starts < 1 and not self.free_starts):
            return RateLimited(f"at most {self.a_minute} requests a minute for {self.what}", retry_after_s=wait_s)
        most = f"at most {self.tokens_a_minute} tokens a minute for {self.what}"
        return RateLimited(f"{most}, and this request may come to {tokens}", retry_after_s=wait_s)

    def take(self, told: quota_pb2.PaceShare, asked_at: float, *, tokens: int | None) -> None:
        """Take over what auth gave; a request of so many tokens waits for it, None: none does."""
        lasts_s = told.expires_in.ToMilliseconds() / 1000
        self.starts += told.starts
        self.slots = told.slots
        self.slots_until = asked_at + lasts_s
        self.renew_after = asked_at + lasts_s / 4
        self.holders = max(1, told.holders)
        self.free_starts = told.free_starts
        self.tokens += told.tokens
        self.free_tokens = told.free_tokens
        self._most_tokens = self.tokens_a_minute
        self._alone_at = 0.0
        if tokens is not None and not self._room(asked_at, tokens):
            self._refused_tokens = tokens
            wait_s = told.wait.ToMilliseconds() / 1000
            self.wait_until = asked_at + wait_s
            self.refused_until = asked_at + min(max(wait_s, _REFUSAL_S), 1.0)

    def _room(self, now: float, tokens: int) -> bool:
        return (
            (not self.a_minute or self.starts >= 1)
            and (not self.at_once or (self.running < self.slots and now < self.slots_until))
            and self._has_tokens(tokens)
        )

    def _has_tokens(self, tokens: int) -> bool:
        return not self.tokens_a_minute or not tokens or self.tokens >= min(tokens, self._most_tokens)

    def alone(self, now: float) -> None:
        """Go on while nobody can divide: with an equal part of the limit, as far as is known of others."""
        if self.at_once:
            self.slots = max(self.slots, math.ceil(self.at_once / self.holders))
            self.slots_until = now + _ALONE_S
        if self.a_minute:
            part = max(1.0, self.a_minute / self.holders)
            if self._alone_at:
                self.starts = min(part, self.starts + (now - self._alone_at) * part / 60)
            self.wait_until = now + max(0.0, 1 - self.starts) * 60 / part
        if self.tokens_a_minute:
            part = max(1.0, self.tokens_a_minute / self.holders)
            self._most_tokens = math.floor(part)
            if self._alone_at:
                self.tokens = min(part, self.tokens + (now - self._alone_at) * part / 60)
            self.wait_until = max(self.wait_until, now + _REFUSAL_S)
        self._alone_at = now
        self.refused_until, self._refused_tokens = now + _REFUSAL_S, 0

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
        tokens = self._returned_tokens(all_of_them=idle_s > _IDLE_S)
        spare = self.slots - max(self.running, self.peak)
        renews = now > self.renew_after and (self.running > 0 or idle_s < ACTIVE_S)
        if not returned and not tokens and spare <= 0 and not renews:
            return None
        self.starts -= returned
        self.tokens -= tokens
        self.slots = min(self.slots, max(self.running, self.peak))
        return self._asked(
            returned_starts=returned,
            returned_tokens=tokens,
            running=self.running,
            slots=self.slots,
            want_slots=self.slots,
        )

    def _returned_tokens(self, *, all_of_them: bool) -> int:
        """Return how many tokens go back; below zero, what was used beyond what was set aside."""
        if self._alone_at or (self.tokens > 0 and not all_of_them):
            return 0
        return math.floor(self.tokens)

    def need(self, tokens: int) -> quota_pb2.PaceNeed:
        """Return what is needed for one more request, and what would spare the next ones a call."""
        over = self._returned_tokens(all_of_them=False)
        self.tokens -= over
        lacking = 0 if self._has_tokens(tokens) else math.ceil(min(tokens, self.tokens_a_minute) - self.tokens)
        return self._asked(
            returned_tokens=over,
            tokens=lacking,
            want_tokens=max(lacking, self.tokens_a_minute) if lacking else 0,
            starts=0 if self.starts >= 1 else 1,
            want_starts=0 if self.starts >= 1 else max(self.waiting, self.a_minute),
            running=self.running,
            slots=self.running + 1,
            want_slots=max(self.running + self.waiting, self.at_once),
        )

    def _asked(self, **needs: Any) -> quota_pb2.PaceNeed:
        need = quota_pb2.PaceNeed(key_id=self.key_id, subject=self.subject, **needs)
        if self.upstream is not None:
            need.upstream.CopyFrom(self.upstream)
            if self.told_starts is not None:
                need.most_starts = self.told_starts
            if self.told_tokens is not None:
                need.most_tokens = self.told_tokens
            self.told_starts = self.told_tokens = None
        return need


def entered(shares: Sequence[Share], now: float, tokens: int = 0) -> bool:
    """Begin a request if that needs no call, and tell so. Raises RateLimited where it was refused a moment ago."""
    for share in shares:
        if not share.ready(now, tokens):
            return False
    begin(shares, now, tokens)
    return True


def begin(shares: Iterable[Share], now: float, tokens: int) -> None:
    """Count a request that begins, and may come to so many tokens."""
    for share in shares:
        share.begin(now, tokens)
