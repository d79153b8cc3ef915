"""Tests use public faces. Ruff refuses what it sees (SLF001); here is what it does not: names that a string gives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("tests", "inference/training/tests")


def reaches(source: str) -> Iterator[str]:
    """Yield the private names that a module reads or replaces by their name in a string."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("setattr", "getattr", "delattr", "patch", "object"):
            for given in node.args[:2]:
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    name = given.value.rpartition(".")[2]
                    if name.startswith("_") and not name.startswith("__"):
                        yield given.value


def test_no_test_replaces_a_private_by_its_name() -> None:
    """A service's private may change its name without a test that claims something else."""
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    found = {str(path.relative_to(REPOSITORY)): list(reaches(path.read_text())) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_private_name_in_a_string_is_seen() -> None:
    """In whichever way it is given; public and special names are free."""
    source = 'monkeypatch.setattr(engine, "_read", 1)\nsetattr(x, "public", 1)\ngetattr(x, "__name__")\n'
    source += 'monkeypatch.setattr("inference.loop._EVERY_S", 0)'
    assert list(reaches(source)) == ["_read", "inference.loop._EVERY_S"]
