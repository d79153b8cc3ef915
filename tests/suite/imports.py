"""Imports the tests once for all workers, in the process that workers are forked from.

A worker that imports all files of tests by itself takes 1.5 s of CPU, and 5 s more in a fresh checkout, where pytest
rewrites their asserts: in each worker, for they do it at the same moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

import pytest

ARGUMENTS: Final = "TESTS_ARGUMENTS"
"""The variable that tells pytest's arguments, as JSON; unset: nothing is imported."""


class _Nothing:
    """Has pytest import what it would collect, and find no test in it."""

    def __init__(self) -> None:
        self.threads: str | None = None
        """The first file whose import starts a thread."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self) -> list[pytest.Item]:
        return []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if self.threads is None and len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
            self.threads = report.nodeid


def tell(arguments: Sequence[str]) -> None:
    """Tell the processes that are started from here which tests are run."""
    os.environ[ARGUMENTS] = json.dumps(list(arguments))


def take() -> None:
    """Import the files of tests that are run. What cannot be imported is left: a worker tells why.

    Raises SystemExit where one starts a thread: a process that has two cannot be forked.
    """
    if not (told := os.environ.get(ARGUMENTS)):
        return
    paths = list(sys.path)
    # Workers have it as a plugin; it says that its asserts need no rewriting.
    sys.modules["anyio"].__doc__ = "PYTEST_DONT_REWRITE"
    options = ["-n", "0", "--collect-only", "-s", "-p", "no:cacheprovider"]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        pytest.main([*json.loads(told), *options], plugins=[nothing := _Nothing()])
    sys.path[:] = paths
    if nothing.threads is not None:
        raise SystemExit(f"{nothing.threads} imports what starts threads: let its tests import that where they use it")
