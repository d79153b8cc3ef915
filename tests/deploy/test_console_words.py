"""The words of the console: each is shown by a page, or names what an answer says."""

from __future__ import annotations

from pathlib import Path

from deploy.build.console import SOURCES
from deploy.build.console_words import unused


def test_every_word_is_used() -> None:
    """In both languages."""
    assert unused(SOURCES / "src") == []


def test_a_word_that_nothing_shows_is_named(tmp_path: Path) -> None:
    """One that is named by a page, by a value of the contract, or begun by a page, is used; the texts are no names."""
    words = 'export const en = { shown: "gone: \\"x\\"", gone: "A", KIND_ONE: "one", other: `b`,\n last: "c",'
    words += ' state_up: "up" };'
    for name in ("words.en.ts", "words.ko.ts"):
        (tmp_path / name).write_text(words)
    (tmp_path / "Page.svelte").write_text('{t("shown")} {maybe("state_", now)} {maybe("", kind)} {t("last")}')
    (tmp_path / "kind.proto").write_text("enum Kind {\n  KIND_ONE = 1;\n}\n")
    assert unused(tmp_path, tmp_path) == [
        f"{name}: nothing shows {word}" for name in ("words.en.ts", "words.ko.ts") for word in ("gone", "other")
    ]
