"""Chooses groups, orders the tests, and prints what each group took against its budget."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.suite import groups, recorded
from tests.suite.groups import GROUPS

COSTLY = frozenset({"gateway", "edge", "rig", "url", "system", "running", "_world"})
"""Fixtures of a session or folder that are dear to set up: one worker runs all of their users, with one of each."""


def add_options(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("moa")
    group.addoption("--group", action="append", default=[], metavar="NAME", help="only this group; may be repeated")
    group.addoption("--fast", action="store_true", help="leave out tests marked `long`, and groups with no budget")
    group.addoption("--record", action="store_true", help="write what each file took to tests/suite/recorded.json")
    group.addoption("--exec", action="store_true", help="start every process as a gateway does; fork none (slower)")
    group.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests in each, in random order")


def workers() -> int:
    """Return two workers for each core, eight at most: three for two cores left a fifth of the cores' time unused."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(1, min(8, cores * 2))


class Suite:
    """The plugin. With workers, each orders its tests by it, and the controller counts and prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seconds: dict[str, float] = defaultdict(float)
        self._tests: dict[str, set[str]] = defaultdict(set)
        self._shares: dict[str, set[str]] = defaultdict(set)

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        """Leave out whole files, so that what they import (torch takes seconds) is not imported."""
        if collection_path.suffix != ".py" or not collection_path.is_relative_to(config.rootpath):
            return None
        group = groups.group_of(collection_path.relative_to(config.rootpath).as_posix())
        wanted = config.getoption("--group")
        if group is None:
            return None
        if (wanted and group.name not in wanted) or (config.getoption("--fast") and not group.budget_s):
            return True
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Look for no garbage among a million imported objects, neither while they are made nor ever after."""
        gc.disable()
        try:
            return (yield)
        finally:
            gc.freeze()
            gc.enable()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is not asked for; put the rest in the order in which it is run."""
        wanted = [groups.named(name) for name in config.getoption("--group")] or list(GROUPS)
        fast = config.getoption("--fast")
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in items:
            group = groups.group_of(recorded.file_of(item.nodeid))
            slow = fast and (item.get_closest_marker("long") is not None or (group is not None and not group.budget_s))
            (left if slow or (group is not None and group not in wanted) else kept).append(item)
        if left:
            config.hook.pytest_deselected(items=left)
        if (seed := config.getoption("--shuffle")) is not None:
            kept = _shuffled(kept, Random(seed))
        elif hasattr(config, "workerinput"):
            kept = _longest_first(kept)
        items[:] = kept
        for item in items:
            self._shares[recorded.file_of(item.nodeid)].update(_costly(item))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> object:
        """Deal whole units out to the workers."""
        from tests.suite.scheduler import ByUnit

        return ByUnit(config, log)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell the controller, which collects nothing itself, who shares what."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["moa_shares"] = {file: sorted(names) for file, names in self._shares.items()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take what a worker told."""
        for file, names in getattr(node, "workeroutput", {}).get("moa_shares", {}).items():
            self._shares[file].update(names)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up a set-up, a call or a tear-down."""
        file = recorded.file_of(report.nodeid)
        self._seconds[file] += report.duration
        self._tests[file].add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the sums, and write them where that was asked for."""
        spent: dict[str, float] = defaultdict(float)
        count: dict[str, int] = defaultdict(int)
        for file, seconds in self._seconds.items():
            group = groups.group_of(file)
            name = group.name if group else "no group"
            spent[name] += seconds
            count[name] += len(self._tests[file])
        terminalreporter.section("seconds by group (of all workers together)")
        for group in GROUPS:
            if group.name in spent:
                terminalreporter.line(_line(group, spent[group.name], count[group.name]))
        terminalreporter.line(f"  {'all':<12} {sum(spent.values()):6.0f} s {sum(count.values()):20} tests")
        for file, names in unrecorded(self._shares, recorded.read()).items():
            terminalreporter.line(f"  {file} sets {' and '.join(names)} up by itself: `make test ARGS=--record`")
        if self._config.getoption("--record"):
            self._record()

    def _record(self) -> None:
        known = recorded.read()
        for file, seconds in self._seconds.items():
            shares = tuple(sorted(self._shares[file])) or (known[file].shares if file in known else ())
            known[file] = recorded.File(seconds=round(seconds, 1), shares=shares)
        recorded.write(known)


def unrecorded(shares: Mapping[str, Collection[str]], known: Mapping[str, recorded.File]) -> dict[str, list[str]]:
    """Return the costly fixtures by file of which it is not recorded that the file shares them."""
    found = {
        file: sorted(set(names) - set(known[file].shares if file in known else ())) for file, names in shares.items()
    }
    return {file: names for file, names in sorted(found.items()) if names}


def _line(group: groups.Group, seconds: float, count: int) -> str:
    budget = f"of {group.budget_s:4} s" if group.budget_s else ""
    over = "  over its budget" if group.budget_s and seconds > group.budget_s else ""
    return f"  {group.name:<12} {seconds:6.0f} s {budget:<12} {count:7} tests{over}"


def _costly(item: pytest.Item) -> set[str]:
    """Return the costly fixtures that a test uses; a module's own of the same name is not one."""
    if not isinstance(item, pytest.Function):
        return set()
    found = item._fixtureinfo.name2fixturedefs  # noqa: SLF001  # pytest tells a fixture's scope nowhere else
    return {name for name in COSTLY if name in found and found[name][-1].scope in ("session", "package")}


def _longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    units = recorded.units((recorded.file_of(item.nodeid) for item in items), recorded.read())

    def place(item: pytest.Item) -> tuple[float, str]:
        unit = units[recorded.file_of(item.nodeid)]
        return -unit.seconds, unit.name

    return sorted(items, key=place)


def _shuffled(items: list[pytest.Item], random: Random) -> list[pytest.Item]:
    """Return the files in random order, and the tests of each in random order: files are not torn apart."""
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(recorded.file_of(item.nodeid), []).append(item)
    mixed = list(files.values())
    random.shuffle(mixed)
    for tests in mixed:
        random.shuffle(tests)
    return [item for tests in mixed for item in tests]
