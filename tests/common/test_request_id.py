"""The id of a request, as a service takes it from whoever calls."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.common.rpc import call as calls


@pytest.mark.parametrize("given", ["a", "!~" * 64, "req_1-ü"[:-1]])
def test_visible_ascii_is_kept(given: str) -> None:
    """Up to 128 characters, as it came."""
    assert calls.begin("/a.B/C", given).request_id == given


@pytest.mark.parametrize(
    "given",
    ["", "a" * 129, "a b", "a\n", "\na", 'x\n{"event": "rpc.finished"}', "a\x7f", "a\x00", "é", "１２"],
)
def test_anything_else_is_replaced(given: str) -> None:
    """By an id of its own: not cut, so that no two become the same."""
    made = calls.begin("/a.B/C", given).request_id
    assert UUID(made).hex == made
