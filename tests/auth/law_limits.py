"""What binds in the tests of the ledger's law."""

from __future__ import annotations

from hypothesis import strategies as st

from services.auth.domain.accounts import KeyLimits, Limits
from services.quota_client.amounts import Amount

LIMITS = Limits(tokens_a_day=1000, images_a_day=0, nano_usd_a_month=2500, requests_in_total=12, key_count=1)
KEY_LIMITS = KeyLimits(nano_usd_in_total=4000, requests_a_day=7)
CREDITS = 3000
"""What the account was granted."""
TEAM_LIMITS: dict[str, int | None] = {"tokens_a_month": 1700, "nano_usd_a_day": 2000}
BUDGETS: dict[str, dict[str, int | None]] = {
    "a": {"tokens_a_day": 600, "nano_usd_in_total": 3000},
    "b": {"requests_a_day": 3, "nano_usd_a_month": 1500},
}
"""Limits of budgets of the team, by the tag of the requests that count on them."""
AMOUNTS = st.builds(
    Amount,
    tokens=st.integers(1, 400),
    images=st.just(0),
    nano_usd=st.integers(0, 900),
    micro_credits=st.integers(0, 600),
    requests=st.integers(0, 2),
)
