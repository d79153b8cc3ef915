"""Shorthand of the quota tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.checker import Checker, Findings
from services.common.admission import Admission, Reservation

PEPPER = b"a pepper for the tests"
TOKEN = "a service token for the tests"


async def reserve(admission: Admission, key: str, count: int = 100, **more: object) -> Reservation:
    """Reserve tokens for a request."""
    asked = {
        "operation": quota_pb2.OPERATION_TEXT,
        "provider": "local-text",
        "model": "m",
        "tokens": count,
        "request_id": "r",
        **more,
    }
    reservation = await admission.reserve(key, **asked)  # type: ignore[arg-type]
    assert isinstance(reservation, Reservation)
    return reservation


def tokens(count: int) -> usage_pb2.Usage:
    """Give the usage of that many tokens."""
    return usage_pb2.Usage(prompt_tokens=count // 2, completion_tokens=count - count // 2, exact=True)


def settle(reservation: Reservation, count: int) -> None:
    """Settle a reservation at that many tokens."""
    reservation.settle(usage=tokens(count), provider="local-text", model="m")


async def vanish(admission: Admission) -> None:
    """Have a router's half fall silent as if it were dead: no renewal, no report, no return."""
    await admission._refreshing.stop()


async def until(condition: Callable[[], bool], within_s: float = 40.0) -> None:
    """Wait for a condition that others bring about."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(0.02)


async def audited(url: str) -> Findings:
    """Check the books; they must balance."""
    found = await Checker(url).check(most=10_000, whole=True)
    assert not found.faults
    return found
