"""What the router counts beyond its calls."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from moa.common.v1 import usage_pb2
from services.catalogue import Model
from services.quota_client.amounts import NANO
from services.router.traffic import BOUNDS_S

FIRST_EVENT = Histogram(
    "moa_first_event_seconds",
    "From the request to the answer's first event: time to first token.",
    ["provider", "model"],
    buckets=BOUNDS_S,
)
TOKENS = Counter("moa_tokens_total", "Tokens charged.", ["provider", "model", "kind"])
IMAGES = Counter("moa_images_total", "Images charged.", ["provider", "model"])
COST = Counter(
    "moa_cost_usd_total",
    "What answers cost by the catalogue's prices, in US dollars, by the team of who pays; empty: none.",
    ["provider", "model", "team"],
)
BROKEN = Counter("moa_answers_broken_total", "Answers that failed after their first event.", ["provider", "reason"])


JOURNAL_FAILED = Gauge(
    "moa_journal_failed",
    "1 while the journal of what is not booked yet cannot be written, as on a full disk; else 0.",
)
ATTEMPTS_FAILED = Counter(
    "moa_attempts_failed_total",
    "Calls of targets that failed, before or after their first event.",
    ["provider", "model", "reason"],
)
FALLBACKS = Counter(
    "moa_fallbacks_total",
    "Answers that another target began in the place of the one that was asked for.",
    ["provider", "model", "by_provider", "by_model"],
)
RESCUES = Counter(
    "moa_rescues_total",
    "Streams that died after their first event: gone on with elsewhere (done), or not (failed).",
    ["outcome"],
)
UNBILLED_ATTEMPTS = Counter(
    "moa_unbilled_attempts_total",
    "Calls at which a provider may have worked and that no caller pays for: they were given up.",
    ["provider", "model", "reason"],
)
UNBILLED_TOKENS = Counter(
    "moa_unbilled_tokens_total",
    "Tokens of such calls: as reported, else as guessed from what went by.",
    ["provider", "model"],
)
UNBILLED_IMAGES = Counter("moa_unbilled_images_total", "Images that such calls had asked for.", ["provider", "model"])
OPERATOR_COST = Counter(
    "moa_operator_cost_usd_total",
    "What such calls cost by the catalogue's prices, in US dollars: as reported, else as guessed, by why nobody pays.",
    ["provider", "model", "why"],
)
ROUTED = Counter(
    "moa_routed_requests_total",
    "Requests for virtual models, by the target that began to answer.",
    ["route", "provider", "model"],
)
SHADOWS = Counter(
    "moa_shadows_total",
    "Shadows of requests for virtual models: answered to the end (done), failed, or not begun (skipped).",
    ["provider", "model", "outcome"],
)
HEDGES = Counter(
    "moa_hedges_total",
    "Calls of a second target while the first was silent: it answered (won), the first did (lost), or it failed.",
    ["provider", "model", "outcome"],
)
TARGET_OPEN = Gauge(
    "moa_target_open",
    "Whether a target failed again and again and is left alone (its breaker is open).",
    ["provider", "model"],
)
UPSTREAM_HELD_BACK = Counter(
    "moa_upstream_held_back_total",
    "Calls not made because a provider would have refused them by its known limits: another target was asked (passed),"
    " the request waited (waited), waited in vain (timeout, full), or its caller was told at once (refused).",
    ["provider", "outcome"],
)
UPSTREAM_WAITING = Gauge(
    "moa_upstream_waiting", "Requests that wait for a provider at its limit.", ["provider", "model"]
)
UPSTREAM_WAIT = Histogram(
    "moa_upstream_wait_seconds",
    "How long requests waited for a provider at its limit.",
    ["provider"],
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60),
)
POLICY_VERDICTS = Counter(
    "moa_policy_verdicts_total",
    "Requests and answers that a policy refused, changed or stopped, or could not judge (failed).",
    ["policy", "verdict"],
)
POLICY_SECONDS = Histogram(
    "moa_policy_seconds",
    "What policies take for a request or an event.",
    ["policy"],
    buckets=(0.0001, 0.001, 0.01, 0.1, 1, 10),
)
IDEMPOTENT = Counter(
    "moa_idempotent_requests_total",
    "Requests with an idempotency key, by what had become of it: begun, running, kept, reused, lost.",
    ["outcome"],
)
UNKEPT = Counter(
    "moa_idempotent_answers_unkept_total",
    "Answers of requests with an idempotency key that could not be kept, by why: too_large, unavailable.",
    ["reason"],
)


class Meters(NamedTuple):
    """One model's meters, looked up once: a label's look-up costs more than its increment."""

    first_event: Histogram
    prompt: Counter
    completion: Counter
    images: Counter


@lru_cache(maxsize=4096)
def of_model(provider: str, model: str) -> Meters:
    """Return a model's meters, by catalogue ids."""
    return Meters(
        FIRST_EVENT.labels(provider, model),
        TOKENS.labels(provider, model, "prompt"),
        TOKENS.labels(provider, model, "completion"),
        IMAGES.labels(provider, model),
    )


_TEAMS: Final[set[str]] = set()
_MOST_TEAMS: Final = 100
_OTHER_TEAMS: Final = "(others)"


@lru_cache(maxsize=4096)
def _cost_of(provider: str, model: str, team: str) -> Counter:
    """Return the meter of a model's costs to a team; the teams beyond the first hundred of a process share one."""
    if team and team not in _TEAMS:
        if len(_TEAMS) >= _MOST_TEAMS:
            return COST.labels(provider, model, _OTHER_TEAMS)
        _TEAMS.add(team)
    return COST.labels(provider, model, team)


def charged(model: Model, usage: usage_pb2.Usage, day: dt.date | None = None, *, team: str = "") -> float | None:
    """Count what a caller of a team was charged; return what it cost in US dollars, None where the model has no price.

    By the prices of `day`, or of today.
    """
    meters = of_model(model.provider, model.label)
    meters.prompt.inc(usage.prompt_tokens)
    meters.completion.inc(usage.completion_tokens)
    if usage.images:
        meters.images.inc(usage.images)
    price = model.price(day)
    if price is None:
        return None
    cost = price.nano_usd(usage) / NANO
    _cost_of(model.provider, model.label, team).inc(cost)
    return cost


def unbilled(model: Model, reason: str, usage: usage_pb2.Usage, nano_usd: int | None = None) -> None:
    """Count a call that no caller pays for: it is the operator's. `nano_usd`: its cost; None: by the model's prices.

    A cost that is not known is not counted.
    """
    UNBILLED_ATTEMPTS.labels(model.provider, model.label, reason).inc()
    UNBILLED_TOKENS.labels(model.provider, model.label).inc(usage.prompt_tokens + usage.completion_tokens)
    UNBILLED_IMAGES.labels(model.provider, model.label).inc(usage.images)
    cost = model.cost_on()(usage, model.provider, model.id) if nano_usd is None else nano_usd
    OPERATOR_COST.labels(model.provider, model.label, reason).inc((cost or 0) / NANO)
