"""Callers with a provider's key of their own: each has a pace, and slows no other."""

from __future__ import annotations

import functools

import pytest

from services.common import throttle
from services.common.errors import RateLimited
from services.common.rpc import call as calls
from services.router import serving
from services.router.serving import own_keys


@pytest.fixture(autouse=True)
def _time_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass while a test makes its calls."""
    monkeypatch.setattr(serving, "Throttle", functools.partial(throttle.Throttle, clock=lambda: 0.0))


class Context:
    """A call with one key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-goog-api-key", self._key),)

    def time_remaining(self) -> None:
        return None


def is_own(key: str) -> bool:
    return key.startswith("AIza")


def key(number: int) -> str:
    return f"AIza{number:035d}"


def test_the_pace_of_a_key_is_its_own() -> None:
    """Sixty at once, then one a second, wherever it comes from; another key goes on, as the same account."""
    begin = own_keys("a-service-token-for-tests", is_own)
    for number in range(60):
        calls.begin("m", "r", f"198.18.0.{number}")
        assert begin(Context(key(1))).own_key == key(1)
    with pytest.raises(RateLimited, match="at most 60 requests a minute") as told:
        begin(Context(key(1)))
    assert 0 < (told.value.retry_after_s or 0) <= 1
    assert begin(Context(key(2))).own_key == key(2)
    # A key of the gateway's has a pace of its own, which the auth service counts.
    assert begin(Context("moa-other")).own_key == ""


def test_an_address_cannot_make_keys_up() -> None:
    """So many calls of one address, with whatever keys; another address goes on with the same key."""
    begin = own_keys("a-service-token-for-tests", is_own)
    calls.begin("m", "r", "198.18.1.1")
    for number in range(240):
        begin(Context(key(number)))
    with pytest.raises(RateLimited):
        begin(Context(key(999)))
    calls.begin("m", "r", "198.18.1.2")
    assert begin(Context(key(999))).own_key == key(999)


def test_keys_that_are_no_use_are_not_counted() -> None:
    """Where the operator lets nobody bring a key, one is a key like any other."""
    begin = own_keys("a-service-token-for-tests", None)
    calls.begin("m", "r", "198.18.2.1")
    for _ in range(300):
        assert begin(Context(key(1))).own_key == ""
    assert is_own(key(1))
