"""What rows of providers may say to their adapter alone: each adapter has a struct for it."""

from __future__ import annotations

from msgspec import Struct


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """For adapters that are told nothing."""
