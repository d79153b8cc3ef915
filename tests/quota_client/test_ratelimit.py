"""What is left of a day, as headers."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import grpc
from msgspec.structs import replace

from services.common.errors import QuotaExhausted
from services.common.rpc import status
from services.quota_client import Remaining, ratelimit
from services.quota_client._verified_key import Minute
from services.quota_client.amounts import BOUNDLESS, Amount

_ITEM = r'"[a-z]+"(;[a-z]+=([0-9]+|"[a-z]+"))+'


def _left(*, unlimited: bool = False) -> Remaining:
    resets_at = datetime.now(UTC) + timedelta(seconds=100)
    return Remaining(
        limit_tokens=100_000, free_tokens=1234, limit_images=50, free_images=0, resets_at=resets_at, unlimited=unlimited
    )


def test_both_spellings_say_the_same() -> None:
    """OpenAI's names and the IETF's structured fields tell each quota, what is left of it, and its reset."""
    began = time.monotonic()
    told = dict(ratelimit.headers(_left()))
    took_s = time.monotonic() - began
    assert told["ratelimit-policy"] == '"tokens";q=100000;qu="tokens";w=86400, "images";q=50;qu="images";w=86400'
    match = re.fullmatch(r'"tokens";r=1234;t=(\d+), "images";r=0;t=(\d+)', told["ratelimit"])
    assert match
    assert match[1] == match[2]
    assert 98 - took_s <= int(match[1]) <= 100
    assert told["x-ratelimit-reset-tokens"] == f"{match[1]}s"
    assert (told["x-ratelimit-remaining-tokens"], told["x-ratelimit-remaining-images"]) == ("1234", "0")
    for name in ("ratelimit", "ratelimit-policy"):
        assert re.fullmatch(f"{_ITEM}(, {_ITEM})*", told[name])


def test_a_minutes_requests_stand_beside_the_day() -> None:
    """A pace has its own window, and stands alone where the day has no limit."""
    paced = replace(_left(), limit_requests=60, free_requests=45)
    told = dict(ratelimit.headers(paced))
    assert told["ratelimit-policy"].startswith('"requests";q=60;qu="requests";w=60, "tokens"')
    assert told["ratelimit"].startswith('"requests";r=45;t=15, "tokens"')
    assert told["x-ratelimit-reset-requests"] == "15s"
    alone = dict(ratelimit.headers(replace(paced, unlimited=True)))
    assert alone["ratelimit"] == '"requests";r=45;t=15'
    assert "x-ratelimit-limit-tokens" not in alone


def test_a_minutes_tokens_are_what_openais_names_tell() -> None:
    """They know one window of tokens, and their clients wait by it; the fields tell both."""
    told = dict(ratelimit.headers(replace(_left(), minute_tokens=Minute(6000, 4500))))
    assert told["x-ratelimit-limit-tokens"] == "6000"
    assert told["x-ratelimit-remaining-tokens"] == "4500"
    assert told["x-ratelimit-reset-tokens"] == "15s"
    assert told["ratelimit"].startswith('"tokens-a-minute";r=4500;t=15, "tokens";r=1234')


def test_a_minutes_images_and_dollars_are_told_too() -> None:
    """Clients wait by what OpenAI's names tell. The fields know whole numbers alone: dollars are billionths there."""
    left = replace(_left(), minute_images=Minute(6, 2), minute_nano_usd=Minute(500_000_000, 125_000_000))
    told = dict(ratelimit.headers(left))
    assert (told["x-ratelimit-limit-images"], told["x-ratelimit-remaining-images"]) == ("6", "2")
    assert (told["x-ratelimit-limit-usd"], told["x-ratelimit-remaining-usd"]) == ("0.50", "0.125")
    assert (told["x-ratelimit-reset-images"], told["x-ratelimit-reset-usd"]) == ("40s", "45s")
    assert (
        '"images-a-minute";q=6;qu="images";w=60, "usd-a-minute";q=500000000;qu="nano-usd"' in told["ratelimit-policy"]
    )
    assert '"images-a-minute";r=2;t=40, "usd-a-minute";r=125000000;t=45, "tokens";r=1234' in told["ratelimit"]


def test_no_limit_has_no_headers() -> None:
    """Who has no limit is told of none."""
    assert ratelimit.headers(_left(unlimited=True)) == []


def test_a_refusal_carries_them() -> None:
    """What an error says in headers is in the trailers of the failed call, which the edge sends as headers."""
    refused = QuotaExhausted("no more today", retry_after_s=100)
    refused.headers = tuple(ratelimit.headers(_left()))
    assert set(refused.headers) <= set(status.trailers_of(refused, "r"))
    assert status.CODE[refused.reason] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_only_what_has_a_limit_is_told() -> None:
    """A dimension without a limit is unset in what is left, one that is used up is zero, and both are read back so."""
    limit = BOUNDLESS._replace(tokens=100, images=5)
    told = (limit - Amount(tokens=30, images=7, nano_usd=9)).message_within(limit)
    assert [(field.name, value) for field, value in told.ListFields()] == [("tokens", 70), ("images", 0)]
    assert Amount.read_limit(told) == BOUNDLESS._replace(tokens=70, images=0)
