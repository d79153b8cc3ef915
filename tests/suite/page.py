"""Write the table of `docs/testing.md` from `tests/suite/groups.py`: `python -m tests.suite.page`."""

from __future__ import annotations

from pathlib import Path

from tests.suite.groups import GROUPS

PAGE = Path("docs/testing.md")
BEGIN, END = "<!-- budgets: written by python -m tests.suite.page -->", "<!-- end of budgets -->"


def table() -> str:
    """Return the table of groups, budgets and targets, in Markdown."""
    lines = ["| Group | Tests of | Seconds in `make test` | All of them |", "|---|---|---:|---|"]
    for group in GROUPS:
        budget = str(group.budget_s) if group.budget_s else "none"
        everything = f"test ARGS='--group {group.name}'" if group.target == "test" else group.target
        lines.append(f"| {group.name} | {group.what} | {budget} | `make {everything}` |")
    lines.append(f"| **all** | | **{sum(group.budget_s for group in GROUPS)}** | |")
    return "\n".join(lines)


def written(page: str) -> str:
    """Return the page with its table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
