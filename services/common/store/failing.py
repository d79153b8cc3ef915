"""How a store that fails is told: in the log, in the metrics, and to callers without what is inside."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from services.common import logs
from services.common.errors import StorageFailed

FAILED: Final = Counter(
    "moa_store_failed_total",
    "Objects that could not be kept, read or removed, by what the disk or the bucket said.",
    ["why"],
)

_log = logs.get("store")


def failed(operation: str, why: str) -> StorageFailed:
    """Note that an operation failed, and return what callers are told."""
    _log.error("store.failed", operation=operation, why=why)
    FAILED.labels(why).inc()
    return StorageFailed("the object store failed")
