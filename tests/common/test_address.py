"""Where a caller is, as far as limits by address count."""

from __future__ import annotations

import pytest

from services.common.rpc.call import address_in


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_counted_by_its_network(told: str, counted: str) -> None:
    """An IPv6 caller, who has 2^64 addresses, has the limits of one."""
    assert address_in({"x-envoy-external-address": told}) == counted
