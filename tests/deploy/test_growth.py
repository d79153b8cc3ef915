"""What `make bench-growth` makes of its measures."""

from __future__ import annotations

import pytest

from bench import growth, growth_books

SIZES = (10, 100, 1000)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [((5, 5, 5), 0.0), ((1, 10, 100), 1.0), ((2, 200, 20_000), 2.0), ((9, 3, 1), -0.477)],
    ids=["flat", "as the work", "quadratic", "cheaper"],
)
def test_the_exponent_is_the_slope(costs: tuple[float, ...], expected: float) -> None:
    """Of cost over size, in logarithms: what doubles with the size has 1."""
    assert growth.exponent(SIZES, costs) == pytest.approx(expected, abs=0.001)


def test_what_grows_more_than_meant_is_marked() -> None:
    """A row says so; one that does not grow is left alone."""
    measure = growth.Measure("things", SIZES, lambda _: [], {"a": ("a", "ms", 0.5), "b": ("b", "ms", 0.5)})
    found = [{"a": 1.0, "b": 7.0}, {"a": 10.0, "b": 7.0}, {"a": 100.0, "b": 7.0}]
    shown = [growth.shown(row) for row in growth.rows(measure, found)]
    assert [line.endswith("more than meant") for line in shown] == [True, False]


def test_every_measure_is_of_three_sizes_ten_times_apart() -> None:
    """Else exponents could not be compared."""
    for measure in growth.MEASURES:
        small, middle, large = measure.sizes
        assert (middle, large) == (10 * small, 100 * small)


def test_books_are_measured_that_balance() -> None:
    """The rows that are made up are audited; a measure of books that do not balance would be one of failures."""
    (found,) = growth_books.ledger((510,))
    assert set(found) == set(next(m.costs for m in growth.MEASURES if m.of == "ledger rows"))
