"""The groups of tests, what each may cost, and the targets that run the long ones: the one place that says so.

`python -m tests.suite.page` writes the table of `docs/testing.md` from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache


@dataclass(frozen=True)
class Group:
    """Tests that cost alike.

    Args:
        name: As `--group` takes it.
        what: What they are, for the page.
        budget_s: What its fast tests may take together, set-up and tear-down included, on two quiet cores with four
            workers. The workers' seconds add up: four workers spend four seconds in one of the clock's.
        patterns: Their files. A file belongs to the first group that has a pattern for it.
        target: The target of the Makefile that runs all of them, the long ones too.
    """

    name: str
    what: str
    budget_s: int
    patterns: tuple[str, ...]
    target: str = "test"


ALL_S = 4 * 8 * 60
"""What all groups may take together: eight minutes of four workers."""

GROUPS = (
    Group(
        "training",
        "training, the quality of the models that ship, what torch compiles, and the engine's measurements",
        0,
        ("inference/training/tests/*", "tests/inference/test_bench.py", "tests/inference/test_compiler.py"),
        "test-training",
    ),
    Group(
        "models",
        "the real weights that the catalogue takes out of packages; they are fetched",
        0,
        ("tests/models/*",),
        "test-models",
    ),
    Group(
        "browser",
        "pages in a real Chromium",
        30,
        ("tests/e2e/test_console*.py", "tests/e2e/test_upload_page.py"),
        "browser",
    ),
    Group(
        "sdk",
        "the official clients, against the gateway or proving an emulator",
        80,
        (
            "tests/compat/*",
            "tests/e2e/test_openai_client.py",
            "tests/e2e/test_samples.py",
            "tests/tasks/test_clouds.py",
            "tests/tasks/test_documented.py",
            "tests/text/test_*_emulator.py",
        ),
        "compat",
    ),
    Group(
        "crash",
        "processes that are killed, starved or cut off",
        280,
        (
            "tests/auth/test_outages.py",
            "tests/auth/test_soak.py",
            "tests/auth/test_stalled.py",
            "tests/deploy/test_database.py",
            "tests/e2e/test_broken_streams.py",
            "tests/e2e/test_faults_amid.py",
            "tests/e2e/test_local_rescue.py",
            "tests/e2e/test_rescue.py",
            "tests/e2e/test_restarts.py",
            "tests/e2e/test_survival.py",
            "tests/e2e/test_two_hosts.py",
            "tests/e2e/test_two_hundred_bodies.py",
            "tests/e2e/test_uploads.py",
            "tests/edge/test_ending.py",
            "tests/edge/test_two.py",
            "tests/inference/test_process.py",
            "tests/tasks/test_crashes.py",
        ),
        "chaos",
    ),
    Group("end-to-end", "a whole gateway, or its edge, over the network", 365, ("tests/e2e/*", "tests/edge/*")),
    Group("engine", "the engine of our own models", 270, ("tests/inference/*",)),
    Group("adapters", "one contract suite against every provider", 175, ("tests/text/*", "tests/image/*")),
    Group(
        "dialects",
        "the foreign dialects, and one row for each error in each",
        150,
        ("tests/router/*", "tests/matrix/*", "tests/walks/*"),
    ),
    Group("books", "accounts, quotas and tasks over the real PostgreSQL", 305, ("tests/auth/*", "tests/tasks/*")),
    Group(
        "unit",
        "everything else: a function, a module, a tool",
        215,
        (
            "tests/catalogue/*",
            "tests/common/*",
            "tests/deploy/*",
            "tests/desk/*",
            "tests/egress/*",
            "tests/local/*",
            "tests/openapi/*",
            "tests/quota_client/*",
            "tests/store/*",
            "tests/suite/*",
        ),
    ),
)


@cache
def group_of(path: str) -> Group | None:
    """Return the group of a test file, given relative to the repository; None where no pattern covers it."""
    return next((group for group in GROUPS if any(fnmatchcase(path, pattern) for pattern in group.patterns)), None)


def named(name: str) -> Group:
    """Return the group of that name. Raises KeyError with the names that there are."""
    for group in GROUPS:
        if group.name == name:
            return group
    raise KeyError(f"no group {name!r}; there are {', '.join(group.name for group in GROUPS)}")
