"""The columns of amounts in statements: of each dimension one, in the order of `Amount`."""

from __future__ import annotations

from typing import Final, LiteralString

from services.quota_client.amounts import DIMENSIONS, LIMITS

MARKS: Final = ", ".join(["%s"] * len(DIMENSIONS))
"""A parameter of each."""
LIMIT_COLUMNS: Final = ", ".join(LIMITS)
"""The limits of an account or a key."""


def each(form: LiteralString, between: LiteralString = ", ") -> LiteralString:
    """Return a piece of SQL for each dimension, whose name stands for `{}` in it."""
    # Only names that are declared in the code come into a statement.
    return between.join(form.replace("{}", name) for name in DIMENSIONS)


COLUMNS: Final = each("{}")
ADDED: Final = each("{} = {} + %s")
