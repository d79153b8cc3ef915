"""Which tests may skip in continuous integration: a skip that says otherwise fails the run.

A tool that is missing there is a fault of the machine's set-up, and a test that never runs shows nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from typing import Final

import pytest

PERMITTED: Final = (
    # The machine is another kind than the test is about.
    r"needs an accelerator: .+",
    r"there is a CUDA device here",
    # A program of the system's packages, which set-up installs along with those that every check needs, if it can.
    r"PgBouncer is not installed",
    # Rows of the matrices of protocol and ability that no provider can have: each names what its protocol lacks or has.
    r"the protocol has no (budget|candidates|logprobs|top_k)",
    r"the protocol has it",
    r"the protocol has no word for it",
    r"the provider does not say",
    r"the provider counts no tokens",
    r"no edits( at all)?",
    r"no styles",
    r"one image at most",
    r"any size, for outpainting only",
    r"one call makes them all",
)
"""Whole reasons, as patterns."""

ELSEWHERE: Final = (
    "forks with pidfds, which Linux has",
    "Linux",
    "needs /dev/full",
    "only Linux tells a child that its parent is gone",
    "other systems have no timer slack",
    "peaks are read from /proc",
    "reads /proc",
    "sessions have a priority on Linux only",
    "wake-ups are read from /proc",
)
"""Whole reasons that are permitted on every system but Linux, as patterns."""


def permitted(reason: str, system: str) -> bool:
    """Return whether a test may skip for a reason, on a system as `sys.platform` names it."""
    patterns = PERMITTED if system == "linux" else (*PERMITTED, *ELSEWHERE)
    return any(re.fullmatch(pattern, reason) for pattern in patterns)


class Skips:
    """Counts the skips of a run by reason; a strict one fails where a reason is not permitted."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.reasons: Counter[str] = Counter()

    @property
    def refused(self) -> dict[str, int]:
        """The reasons that a strict run fails for, with their counts."""
        if not self.strict:
            return {}
        return {reason: count for reason, count in self.reasons.items() if not permitted(reason, sys.platform)}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[told.removeprefix("Skipped: ")] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.strict and self.reasons:
            terminalreporter.section("skipped")
        for reason, count in self.reasons.most_common() if self.strict else ():
            word = "NOT PERMITTED in continuous integration: " if reason in self.refused else ""
            terminalreporter.line(f"{count:>5}  {word}{reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Count the skips of the run; where tests run in several processes, in the one that hears of all."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(strict=os.environ.get("CI") == "true"), "moa-skips")
