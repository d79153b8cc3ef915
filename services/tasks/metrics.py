"""What the task service measures."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)

CREATED = Counter("moa_tasks_created_total", "Tasks created, by dialect.", ["dialect"])
ENDED = Counter("moa_tasks_ended_total", "Tasks ended by this process, by state.", ["state"])
RETRIED = Counter("moa_tasks_retried_total", "Tasks put back, by reason.", ["reason"])
BATCHED = Counter("moa_batch_requests_total", "Requests of batches answered by this process, by outcome.", ["outcome"])
HANDED = Counter(
    "moa_batch_requests_handed_total", "Requests handed to providers' batch APIs, by provider.", ["provider"]
)
OPEN = Gauge("moa_tasks_open", "Open tasks of all processes, by state.", ["state"])
RUNNING = Gauge("moa_tasks_running", "Tasks that this process runs.")
QUEUE_WAIT = Histogram(
    "moa_tasks_queue_wait_seconds", "From when a task could run until it was taken.", buckets=_SECONDS
)
RUN_TIME = Histogram("moa_tasks_run_seconds", "From a task's claim to its end in this process.", buckets=_SECONDS)
WEBHOOKS = Counter("moa_webhook_attempts_total", "Webhook attempts, by outcome.", ["outcome"])
WEBHOOK_DELAY = Histogram(
    "moa_webhook_delay_seconds", "From a webhook's writing to its delivery.", buckets=(*_SECONDS, 86400)
)
