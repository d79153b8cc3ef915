"""The pages of documentation: what they link to is there."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "deploy/helm/moa/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
DECISIONS = [page for page in PAGES if page.parent.name == "decisions"]


def text_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@functools.cache
def headings(page: Path) -> frozenset[str]:
    """Return what links call a page's headings, as GitHub writes them; a second one of a name is not told apart."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    shown = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return frozenset(re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in shown)


def broken(page: Path) -> Iterator[str]:
    """Yield a page's links to files or headings that are not there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, heading = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (heading and target.suffix == ".md" and heading not in headings(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each file and each heading that a page links to is there."""
    assert not list(broken(page))


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A file or a heading that is not there, in this page or another; what stands in a block of code is no link."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`\n[a](#one-two) [b](#two) [c](none.md) [d](page.md#three) [e](https://x)\n```\n[f](g)\n```\n"
    )
    assert list(broken(page)) == ["#two", "none.md", "page.md#three"]


def test_decisions_have_numbers_of_their_own() -> None:
    """A decision is called by its number, which begins the file's name and its title."""
    numbers = [page.name[:4] for page in DECISIONS]
    assert len(set(numbers)) == len(numbers)
    assert [page.read_text().partition(". ")[0] for page in DECISIONS] == [f"# {number}" for number in numbers]
