"""Syntax trees are built whatever else the process does."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.syntax import parsed

SOURCE = "\n".join(f"def f{number}(a, b=(1, [2, {{3: 4}}])):\n    return a.b(c[{number}])" for number in range(200))


class Formatting:
    """Garbage whose finalizer parses, as one that formats a traceback does."""

    def __init__(self) -> None:
        self._itself = self

    def __del__(self) -> None:
        ast.parse("x = (1, [2])")


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """The collector runs at almost every allocation."""
    before = gc.get_threshold()
    gc.set_threshold(10, 1, 1000)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collector")
def test_a_finalizer_that_parses_spoils_no_tree() -> None:
    """The collector waits until the tree is there."""
    Formatting()
    assert len(parsed(SOURCE).body) == 200


def test_the_collector_runs_again_afterwards() -> None:
    """After a tree, after source that is no Python, and after several threads at once; off stays off."""
    parsed("x")
    assert gc.isenabled()
    with pytest.raises(SyntaxError):
        parsed("x = (")
    assert gc.isenabled()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(parsed, [SOURCE] * 8))
    assert gc.isenabled()
    gc.disable()
    try:
        parsed("x")
        assert not gc.isenabled()
    finally:
        gc.enable()
