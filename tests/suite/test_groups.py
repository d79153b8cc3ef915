"""Every test has a group with a budget, and the page says what the code says."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from deploy.local.stack import REPOSITORY
from tests.suite import groups, page
from tests.suite.groups import GROUPS

FILES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in ("tests", "inference/training/tests")
    for path in REPOSITORY.glob(f"{folder}/**/test_*.py")
)


def test_every_file_of_tests_has_a_group() -> None:
    """A folder that no group covers would be run by `make test` and counted nowhere."""
    assert [file for file in FILES if groups.group_of(file) is None] == []


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_pattern_covers_a_file(group: groups.Group) -> None:
    """A pattern whose files were renamed would move them into another group in silence."""
    assert [p for p in group.patterns if not any(fnmatchcase(file, p) for file in FILES)] == []


def test_the_budgets_fit_eight_minutes() -> None:
    """A group that needs more takes it from another, or marks what is long."""
    assert sum(group.budget_s for group in GROUPS) <= groups.ALL_S


def test_every_target_is_there() -> None:
    """The target that runs a group's long tests stands in the Makefile and asks for that group."""
    makefile = (REPOSITORY / "Makefile").read_text()
    for group in GROUPS:
        assert re.search(rf"^{group.target}: .*\n(\t.*\n)*", makefile, re.MULTILINE), group.target
        if group.target != "test":
            assert f"--group {group.name} " in makefile


def test_the_page_has_the_budgets_of_the_code() -> None:
    """`python -m tests.suite.page` would change nothing in docs/testing.md."""
    text = (REPOSITORY / page.PAGE).read_text()
    assert page.written(text) == text


def test_a_hang_is_told_before_the_budget_is_spent() -> None:
    """A test may take two minutes with what it sets up, one that is marked five; where that limit does not reach it,
    the run ends soon after, with the stacks."""
    limit = int(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["timeout"])
    ends = re.search(r"--fast -o faulthandler_timeout=(\d+)", (REPOSITORY / "Makefile").read_text())
    assert ends is not None
    marked = {limit}
    for file in FILES:
        group, source = groups.group_of(file), (REPOSITORY / file).read_text()
        if group is not None and group.budget_s and "pytest.mark.long" not in source:
            marked |= {int(seconds) for seconds in re.findall(r"mark\.timeout\((\d+)\)", source)}
    assert limit <= 120
    assert max(marked) <= 300 < int(ends[1]) < 480


def test_a_group_that_is_not_there_is_refused_with_the_names() -> None:
    """A misspelt `--group` names those that there are, and does not run nothing with success."""
    with pytest.raises(KeyError, match=r"no group 'enigne'; there are .*engine"):
        groups.named("enigne")


def test_the_plan_is_committed_for_files_that_exist() -> None:
    """What was recorded of a file that is gone is dropped."""
    from tests.suite import recorded

    assert [file for file in recorded.read() if not Path(REPOSITORY / file).exists()] == []
