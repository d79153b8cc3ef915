"""Shorthand of the quota tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.checker import Checker, Findings
from services.common.admission import Admission, Reservation
from services.common.errors import Unauthenticated
from tests import waiting

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


async def refused(admission: Admission, key: str) -> float:
    """Ask until the key is refused; give when the last request that was let through had begun.

    What an answer says was true when the request began or later: how long the machine took to answer counts for
    nothing.
    """
    let_through = began = time.monotonic()
    while time.monotonic() < began + 30:
        asked = time.monotonic()
        try:
            (await reserve(admission, key, 1)).release()
        except Unauthenticated:
            return let_through
        let_through = asked
        await asyncio.sleep(0.01)
    pytest.fail("the key was never refused")


async def vanish(admission: Admission) -> None:
    """Have a router's half fall silent as if it were dead: no renewal, no report, no return."""
    await admission._refreshing.stop()


async def until(condition: Callable[[], bool], within_s: float = 40.0) -> None:
    """Wait for a condition that others bring about."""
    end = time.monotonic() + within_s
    pauses = waiting.pauses()
    while not condition():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(next(pauses))


async def audited(url: str) -> Findings:
    """Check the books; they must balance."""
    found = await Checker(url).check(most=10_000, whole=True)
    assert not found.faults
    return found
