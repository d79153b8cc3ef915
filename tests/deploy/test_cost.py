"""What `make cost` counts, and what it says of that."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bench.hot_path import Calls, compared
from services.common.errors import NotFound

ROW = "chat, router"
MINOR = ".".join(platform.python_version_tuple()[:2])


def record(python: str = MINOR) -> dict[str, Any]:
    return {"python": python, "calls": {ROW: {"own": 100.0, "all": 200.0, "c": 50.0}}}


@pytest.mark.parametrize(("own", "more", "less"), [(110.0, 0, 0), (111.0, 1, 0), (90.0, 0, 0), (89.0, 0, 1)], ids=str)
def test_a_tenth_is_tolerated(own: float, more: int, less: int) -> None:
    """More than a tenth above the record is told as such, as is more than a tenth below."""
    found = compared({ROW: {"own": own, "all": 200.0, "c": 50.0}}, record())
    assert [len(each) for each in found] == [more, less]


def test_what_depends_on_python_is_judged_where_it_was_recorded() -> None:
    """Our own calls are judged by every Python, those of libraries and in C by the recorded one alone."""
    counts = {ROW: {"own": 120.0, "all": 400.0, "c": 90.0}}
    assert len(compared(counts, record())[0]) == 3
    (only,) = compared(counts, record("3.0"))[0]
    assert only == "chat, router: 120 calls (of our own functions), recorded 100"


def test_work_that_is_not_recorded_fails() -> None:
    """A new row is recorded with the change that brings it."""
    assert compared({"new, router": {"own": 1.0, "all": 1.0, "c": 1.0}}, record())[0]


def test_objects_in_cycles_are_no_calls() -> None:
    """What waits for the collector is told as what it is, and none may come where none is recorded."""
    row = {"delta, objects in cycles": {"own": 2.0, "all": 0.0, "c": 0.0}}
    assert compared(row, record())[0] == ["delta, objects in cycles: 2, recorded 0"]


def counted(work: Callable[[], object]) -> tuple[int, ...]:
    """Count in a thread of its own: a tracer of this one keeps its place."""
    found: list[tuple[int, ...]] = []

    def run() -> None:
        calls = Calls()
        calls.begin()
        work()
        found.append(calls.end())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_calls_are_told_apart_by_whose_they_are() -> None:
    """A function of a service counts as own and among all, one of another's among all alone."""
    nothing = counted(lambda: None)
    made = counted(lambda: NotFound("x"))
    others = counted(lambda: platform.python_version_tuple())
    assert made[0] > nothing[0] == others[0] == 0
    assert others[1] > nothing[1]
    assert made[1] >= nothing[1] + made[0]
