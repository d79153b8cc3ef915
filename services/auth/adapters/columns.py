"""The columns of amounts in statements: of each dimension one, in the order of `Amount`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, LiteralString, TypeVar

from psycopg.rows import BaseRowFactory

from services.quota_client.amounts import DIMENSIONS, LIMITS, Amount

R = TypeVar("R")

MARKS: Final = ", ".join(["%s"] * len(DIMENSIONS))
"""A parameter of each."""
LIMIT_COLUMNS: Final = ", ".join(LIMITS)
"""The limits of an account or a key."""


def zone_of(account: LiteralString = "", *, at: LiteralString = "now()") -> LiteralString:
    """Return the time zone, as a piece of SQL, of an account's days at a time.

    It changes at the end of a day, so that no day's quota is given twice. `account` is the table's name there.
    """
    of = f"{account}." if account else ""
    return f"case when ({at} at time zone {of}zone)::date >= {of}next_zone_day then {of}next_zone else {of}zone end"


def each(form: LiteralString, between: LiteralString = ", ") -> LiteralString:
    """Return a piece of SQL for each dimension, whose name stands for `{}` in it."""
    # Only names that are declared in the code come into a statement.
    return between.join(form.replace("{}", name) for name in DIMENSIONS)


def rows_of(kind: Callable[..., R], field: str, prefix: str = "") -> BaseRowFactory[R]:
    """Return what makes records of rows, whose columns of each dimension are one amount of a record."""

    def factory(cursor: Any) -> Callable[[Sequence[Any]], R]:
        names = [column.name for column in cursor.description or ()]
        amounts = [prefix + name for name in DIMENSIONS]
        if not set(amounts).issubset(names):
            # A statement that returns no rows.
            return _unread
        # Found once: a report has a thousand rows.
        others = [name for name in names if name not in amounts]
        of_amount = itemgetter(*map(names.index, amounts))
        of_others = itemgetter(*map(names.index, others))

        def row(values: Sequence[Any]) -> R:
            given = dict(zip(others, of_others(values), strict=True))
            given[field] = Amount(*of_amount(values))
            return kind(**given)

        return row

    return factory


def _unread(values: Sequence[Any]) -> Any:
    raise AssertionError("a row without the columns of an amount")


COLUMNS: Final = each("{}")
ADDED: Final = each("{} = {} + %s")
