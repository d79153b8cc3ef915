"""The page of limits says what the code does."""

from __future__ import annotations

import pytest

from deploy.build import limits_page


def test_the_page_is_as_the_constants_are() -> None:
    """`python -m deploy.build.limits_page` writes it anew."""
    page = limits_page.PAGE.read_text(encoding="utf-8")
    assert page == limits_page.written(page)


def test_a_changed_limit_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is written by hand."""
    page = limits_page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(limits_page, "MOST_LINKS", 17)
    assert "| links to images in one request | 17 |" in limits_page.written(page)


def test_a_page_without_its_place_is_refused() -> None:
    """It is not left as it was in silence."""
    with pytest.raises(ValueError, match="no place"):
        limits_page.written("# Limits\n")
