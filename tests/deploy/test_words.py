"""How docstrings begin, as `docs/glossary.md` says."""

from __future__ import annotations

import ast

from deploy.build.protos import REPOSITORY

FOLDERS = ("services", "inference", "gateway", "deploy", "bench", "tests")
GIVEN_BACK = (
    "a claim back",
    "cached blocks back",
    "the memory of unloaded models back",
    "back ",
    "everything back",
    "some of it back",
    "a name all its tries back",
)
"""What functions really give."""


def test_a_docstring_says_what_is_returned() -> None:
    """`Return …` or a plain statement; `Give …` and `Tell whether …` were another way to say the same."""
    found = []
    for folder in FOLDERS:
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path.is_relative_to(REPOSITORY / "inference" / "training"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    words = ast.get_docstring(node) or ""
                    given = words.startswith("Give ") and not words.removeprefix("Give ").startswith(GIVEN_BACK)
                    if given or words.startswith("Tell whether "):
                        found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {words.splitlines()[0]}")
    assert not found
