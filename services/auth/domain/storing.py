"""Whose responses are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Storing:
    """What the operator's setting says of accounts' wishes.

    Args:
        allowed: Whether any account may have its responses stored.
        usual: Whether those are that said nothing.
    """

    allowed: bool = True
    usual: bool = False

    def of(self, wish: bool | None) -> bool:
        """Return whether responses are stored of an account that wishes this; None: it said nothing."""
        return self.allowed and (self.usual if wish is None else wish)


USUAL: Final = Storing()
"""What is where the operator says nothing."""
