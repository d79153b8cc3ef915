"""Which words of the console nothing shows: each is in two languages, and what is shown no more goes from both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from deploy.build.protos import REPOSITORY

WORDS: Final = ("words.en.ts", "words.ko.ts")
_WORD: Final = re.compile(r"(?:^|[{,\s])(\w+):\s*[\"`]")
_QUOTED: Final = re.compile(r"[\"'`](\w+)[\"'`]")
_BEGUN: Final = re.compile(r"[\"`](\w+_)(?:\"|\$\{)")
"""How words begin that are put together: `maybe("status_", …)`, `theme_${…}`."""
_ENUM_VALUE: Final = re.compile(r"^\s+([A-Z][A-Z0-9_]+) = \d+", re.MULTILINE)
_MODALITIES: Final = frozenset(("audio", "video"))
"""Words that answers name and no page does: what models read and give."""


def words_of(text: str) -> list[str]:
    """Return the names of the words in a file of them."""
    return [name for line in text.splitlines() for name in _WORD.findall(_without_texts(line))]


def unused(folder: Path, protos: Path = REPOSITORY / "proto") -> list[str]:
    """Return the words of the sources in `folder` that neither a page nor an answer names."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".ts", ".svelte")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files if path.name not in WORDS)
    values = {value for path in protos.rglob("*.proto") for value in _ENUM_VALUE.findall(path.read_text())}
    named = {*_QUOTED.findall(code), *values, *_MODALITIES}
    begun = tuple(_BEGUN.findall(code))
    return [
        f"{path.name}: nothing shows {word}"
        for path in files
        if path.name in WORDS
        for word in words_of(path.read_text(encoding="utf-8"))
        if word not in named and not word.startswith(begun)
    ]


def _without_texts(line: str) -> str:
    """Return a line with its texts empty, so that no text is read as a word's name."""
    return re.sub(r"\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`", '""', line)
