"""Tests use public faces. Ruff refuses what it sees (SLF001); here is what it does not: names that a string gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.syntax import parsed

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("tests", "inference/training/tests")

# To parse a file takes milliseconds, and there are thousands: what has no such text has no such call or import.
MAY_REACH = re.compile(r"""["'](?:[^"'\n]*\.)?_[^_"'\n]""")
MAY_IMPORT = re.compile(r"^\s*(?:from|import)\b(?:[^\n(]*\([^)]*|[^\n]*)\b_[^_\W]", re.MULTILINE)


def reaches(source: str) -> Iterator[str]:
    """Yield the private names that a module reads or replaces by their name in a string."""
    for node in ast.walk(parsed(source)) if MAY_REACH.search(source) else ():
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


FACES = ("services", "inference", "gateway", "deploy")


def insides(path: Path) -> Iterator[str]:
    """Yield the private modules of other packages of ours that a module imports."""
    package = ".".join(path.relative_to(REPOSITORY).parent.parts)
    source = path.read_text()
    for node in ast.walk(parsed(source)) if MAY_IMPORT.search(source) else ():
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            owner, private, _ = name.partition("._")
            if (
                owner.partition(".")[0] in FACES
                and private
                and not (package == owner or package.startswith(f"{owner}."))
            ):
                yield name


def test_nobody_imports_the_insides_of_a_package() -> None:
    """A package with private modules is used through its face."""
    files = [path for folder in FACES for path in (REPOSITORY / folder).rglob("*.py")]
    found = {str(path.relative_to(REPOSITORY)): list(insides(path)) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from services.two._in import X", ["services.two._in", "services.two._in.X"]),
        ("from services.two import _in", ["services.two._in"]),
        ("def f():\n    from services.two import (  # why\n        out,\n        _in,\n    )", ["services.two._in"]),
        ("import services.two._in as two", ["services.two._in"]),
        ("from services.one._own import Y", []),
    ],
)
def test_an_import_of_the_insides_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, names: list[str]
) -> None:
    """From a module and of a module, on one line and on several; the package itself may."""
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    module = tmp_path / "services" / "one" / "part.py"
    module.parent.mkdir(parents=True)
    module.write_text(code)
    assert list(insides(module)) == names
