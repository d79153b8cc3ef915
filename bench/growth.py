"""`make bench-growth`: how costs grow with what there is, as one table (under ten minutes).

Each measure is made at three sizes ten times apart. The exponent is the slope of cost over size, in logarithms: 0
is flat, 1 grows as the work does, more grows faster. Writes `build/bench/growth.json`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from bench import growth_books, growth_catalogue, growth_gateway, growth_large, growth_pictures

OUT: Final = Path("build/bench/growth.json")
Found = list[dict[str, float]]


@dataclass(frozen=True)
class Measure:
    """What is made larger, and what that costs.

    Args:
        of: What there is more of.
        sizes: How much.
        run: Gives for each size the costs by their names.
        costs: Of each of these: its words, its unit, and the largest exponent that is meant.
    """

    of: str
    sizes: tuple[int, ...]
    run: Callable[[tuple[int, ...]], Found]
    costs: dict[str, tuple[str, str, float]]


def _catalogue(sizes: tuple[int, ...]) -> Found:
    return [{"turn": growth_catalogue.measure(size), "memory": growth_catalogue.memory_mb(size)} for size in sizes]


MEASURES: Final[Sequence[Measure]] = (
    Measure(
        "keys in use",
        (500, 5_000, 50_000),
        growth_books.keys,
        {
            "turn": ("longest turn of the router's loop", "ms", 0.7),
            "round": ("a round that verifies them again", "ms", 1.1),
        },
    ),
    Measure("waiting tasks", (100, 1_000, 10_000), growth_books.tasks, {"claim": ("a claim", "ms", 0.5)}),
    Measure("accounts", (1_000, 10_000, 100_000), growth_books.accounts, {"search": ("a search", "ms", 0.5)}),
    Measure(
        "ledger rows",
        (1_000, 10_000, 100_000),
        growth_books.ledger,
        {
            "usage": ("a page of a year's usage", "ms", 0.5),
            "page": ("a page of rows", "ms", 0.3),
            "audit": ("the audit of 1,000 new rows", "ms", 0.5),
        },
    ),
    Measure(
        "catalogue rows",
        (60, 600, 6_000),
        _catalogue,
        {
            "turn": ("longest turn of a loop at a reload", "ms", 0.6),
            "memory": ("memory of a process", "MB", 1.0),
        },
    ),
    Measure("prompt bytes", (80_000, 800_000, 8_000_000), growth_gateway.prompts, {"chat": ("a chat", "ms", 1.1)}),
    Measure(
        "open streams",
        (20, 200, 2_000),
        growth_gateway.streams,
        {
            "probe": ("a small chat beside them", "ms", 0.3),
            "memory": ("memory of the router", "MB", 1.1),
        },
    ),
    Measure(
        "small chats",
        (50, 500, 5_000),
        growth_gateway.requests,
        {"wal": ("write-ahead log of each", "B", 0.1), "tables": ("tables of each", "B", 0.1)},
    ),
    Measure("bodies of 4 MB", (2, 20, 200), growth_gateway.bodies, {"kept": ("kept by the router", "MB", 0.5)}),
    Measure(
        "large bytes",
        growth_large.SIZES,
        growth_large.measure,
        # Twice the latency at a hundred times the bytes.
        {"ratio": ("a small chat's p95 beside four, to quiet", "x", 0.15)},
    ),
    Measure(
        "picture bytes",
        (90_000, 900_000, 9_000_000),
        growth_pictures.measure,
        {
            "router": ("eight edits, in the router", "MB", 1.1),
            "image": ("eight edits, in the image service", "MB", 1.1),
        },
    ),
)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of the line through the logarithms of sizes and costs, by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(cost, 1e-6)) for cost in costs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def rows(measure: Measure, found: Found) -> list[dict[str, object]]:
    """Return the table's rows of one measure."""
    made = []
    for name, (what, unit, most) in measure.costs.items():
        costs = [each[name] for each in found]
        grows = exponent(measure.sizes, costs)
        made.append(
            {"of": measure.of, "what": what, "unit": unit, "sizes": measure.sizes, "costs": costs, "exponent": grows}
            | {"meant": most, "within": grows <= most}
        )
    return made


def shown(row: dict[str, object]) -> str:
    """Return a row of the table."""
    sizes, costs = row["sizes"], row["costs"]
    assert isinstance(sizes, tuple)
    assert isinstance(costs, list)
    cells = "".join(f"{f'{cost:,.1f} at {size:,}':>22}" for size, cost in zip(sizes, costs, strict=True))
    mark = "" if row["within"] else "  more than meant"
    return f"{row['of']:<15}{row['what']:<42}{row['unit']:<4}{cells}{row['exponent']:>7.2f} of {row['meant']}{mark}"


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--only", default="", help="measures whose name begins so")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began, table = time.monotonic(), []
    print(f"{'of':<15}{'what':<42}{'in':<4}{'cost at each size':>66}{'exponent':>10}")
    for measure in MEASURES:
        if measure.of.startswith(chosen.only):
            for row in rows(measure, measure.run(measure.sizes)):
                table.append(row)
                print(shown(row), flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(table, indent=1))
    print(f"{time.monotonic() - began:.0f} s; {OUT}")


if __name__ == "__main__":
    main()
