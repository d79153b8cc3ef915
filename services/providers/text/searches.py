"""Searches that run at a vendor, which bills them apart from tokens."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

SEARCHED: Final = Counter(
    "moa_upstream_searches_total", "Searches that vendors made for answers, and bill apart from tokens.", ["model"]
)
