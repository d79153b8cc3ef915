"""What the router counts beyond its calls."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

FIRST_EVENT = Histogram(
    "moa_first_event_seconds",
    "From the request to the answer's first event: time to first token.",
    ["provider", "model"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
TOKENS = Counter("moa_tokens_total", "Tokens charged.", ["provider", "model", "kind"])
IMAGES = Counter("moa_images_total", "Images charged.", ["provider", "model"])
COST = Counter(
    "moa_cost_usd_total", "What answers cost by the catalogue's prices, in US dollars.", ["provider", "model"]
)
BROKEN = Counter("moa_answers_broken_total", "Answers that failed after their first event.", ["provider", "reason"])


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
TARGET_OPEN = Gauge(
    "moa_target_open",
    "Whether a target failed again and again and is left alone (its breaker is open).",
    ["provider", "model"],
)


class Meters(NamedTuple):
    """One model's meters, looked up once: a label's look-up costs more than its increment."""

    first_event: Histogram
    prompt: Counter
    completion: Counter
    images: Counter
    cost: Counter


@lru_cache(maxsize=4096)
def of_model(provider: str, model: str) -> Meters:
    """Give a model's meters, by catalogue ids."""
    return Meters(
        FIRST_EVENT.labels(provider, model),
        TOKENS.labels(provider, model, "prompt"),
        TOKENS.labels(provider, model, "completion"),
        IMAGES.labels(provider, model),
        COST.labels(provider, model),
    )
