"""What one test leaves behind does not reach the next."""

from __future__ import annotations

import pytest

from services.common.rpc import call as calls


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_call_that_a_test_began_ends_with_it(which: str) -> None:
    """Whichever of the two runs later does not find what the other left: it has a call of no size, of no address."""
    found = calls.current()
    assert (found.request_bytes, found.address, found.account) == (0, "", "")
    calls.begin("m", "r", "198.51.100.1").request_bytes = 2**30
