"""Shorthand of the quota tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.checker import Checker, Findings
from services.common.errors import PermissionDenied, Unauthenticated
from services.quota_client import Admission, Reservation
from services.quota_client.amounts import Amount
from tests import waiting

PEPPER = b"a pepper for the tests"
TOKEN = "a service token for the tests"


async def reserve(
    admission: Admission, key: str, count: int = 100, *, images: int = 0, min_tokens: int = 0, **more: object
) -> Reservation:
    """Reserve tokens for a request."""
    need = Amount(tokens=count, images=images)
    asked = {
        "operation": quota_pb2.OPERATION_TEXT,
        "provider": "local-text",
        "model": "m",
        "need": need,
        "least": need._replace(tokens=min_tokens or count),
        "request_id": "r",
        **more,
    }
    reservation = await admission.reserve(key, **asked)  # type: ignore[arg-type]
    assert isinstance(reservation, Reservation)
    return reservation


def tokens(count: int) -> usage_pb2.Usage:
    """Return the usage of that many tokens."""
    return usage_pb2.Usage(prompt_tokens=count // 2, completion_tokens=count - count // 2, exact=True)


def settle(reservation: Reservation, count: int) -> None:
    """Settle a reservation at that many tokens."""
    reservation.settle(usage=tokens(count), provider="local-text", model="m")


async def refused(admission: Admission, key: str) -> float:
    """Ask until the key is refused; give when the last request that was let through had begun, long ago if none was.

    What an answer says was true when the request began or later: how long the machine took to answer counts for
    nothing.
    """
    let_through, end = float("-inf"), time.monotonic() + 60
    while time.monotonic() < end:
        asked = time.monotonic()
        try:
            (await reserve(admission, key, 1)).release()
        except (Unauthenticated, PermissionDenied):
            # Of a disabled account a key is known, and may do nothing.
            return let_through
        let_through = asked
        await asyncio.sleep(0.01)
    pytest.fail("the key was never refused")


class Router(Admission):
    """A router's half that can fall silent as if it were dead: no renewal, no report, no pace."""

    def __init__(self, auth: grpc.aio.Channel, **more: Any) -> None:
        self._line = _Line(auth)
        line: Any = self._line
        super().__init__(line, **more)

    def vanish(self) -> None:
        """Fall silent."""
        self._line.silent = True

    def between(self, calls: Between) -> None:
        """Have calls to auth made by this, which may hold one up or its answer."""
        self._line.between = calls

    def recalled(self, key: str) -> None:
        """Return to auth what is idle of a key, as when a refresh says that it is wanted."""
        self._stores.give_up(self._by_digest[self._digest(key)])

    async def returned(self) -> None:
        """Return when auth has confirmed all that was given back."""
        await until(lambda: not any(self._settling.unreturned(store.returning) for store in self._stores.all()))

    async def booked(self) -> None:
        """Return when auth has every settlement."""
        await until(lambda: not self._settling.waiting)


class _Line:
    """A channel to auth on which the calls can be lost by which a router tells that it lives."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.silent = False
        self.between: Between | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, method: str, *given: Any, **more: Any) -> Callable[..., Any]:
        call = self._channel.unary_unary(method, *given, **more)

        def made(*given: Any, **more: Any) -> Any:
            if self.silent and method.endswith(("/Refresh", "/LeasePace")):
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
            if self.between is not None:
                return self.between(method.rpartition("/")[2], given[0], lambda: call(*given, **more))
            return call(*given, **more)

        return made


Between = Callable[[str, Any, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Makes a call, of this name and with this request, and returns its answer."""


async def until(condition: Callable[[], bool], within_s: float = 90.0) -> None:
    """Wait for a condition that others bring about."""
    end = time.monotonic() + within_s
    pauses = waiting.pauses()
    while not condition():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(next(pauses))


async def audited(url: str) -> Findings:
    """Check the books; they must balance."""
    found = await Checker(url).check(most=10_000, whole=True)
    assert not found.faults, found.faults
    return found
