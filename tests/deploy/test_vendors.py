"""The core names no vendor: what is one's own stands in its folder, in a dialect, or in a row of the catalogue."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from deploy.build.protos import REPOSITORY
from deploy.syntax import parsed
from services.providers import vendors
from services.providers.text.base import Adapter

CORE: Final = (
    "services/auth",
    "services/catalogue",
    "services/common",
    "services/quota_client",
    "services/router",
    "services/tasks",
)
DIALECTS: Final = ("services/common/dialects/", "services/router/dialects/", "services/tasks/dialects/")
"""Named after the API that they speak."""
EXCUSED: Final = {
    "services/common/scrub.py": {"bedrock"},
}
"""One vendor's keys are known by a word."""
VENDORS: Final = re.compile(
    r"anthropic|azure|bedrock|amazon|cohere|deepseek|gemini|ideogram|imagen|mistral|stability|titan|vertex|xai",
    re.IGNORECASE,
)


def named(tree: ast.Module) -> Iterator[str]:
    """Yield the vendors that a module's code names: in names and texts, not in what it says of itself."""
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docs:
                yield from VENDORS.findall(text)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield from VENDORS.findall(name)
            case ast.ImportFrom(module=str(name)):
                yield from VENDORS.findall(name)


def test_the_core_names_no_vendor() -> None:
    """A new vendor is its folder and rows; nothing else has to learn of it."""
    found = {}
    for folder in CORE:
        for path in (REPOSITORY / folder).rglob("*.py"):
            name = str(path.relative_to(REPOSITORY))
            if not name.startswith(DIALECTS):
                source = path.read_text()
                # What names none anywhere, as nearly all, need not be parsed.
                words = {word.lower() for word in named(parsed(source))} if VENDORS.search(source) else set()
                if words := words - EXCUSED.get(name, set()):
                    found[name] = words
    assert found == {}


@pytest.mark.parametrize(
    "code", ['X = {"bedrock": 1}', "from services.providers.azure import text", "def of_gemini(): ...", "Imagen = 1"]
)
def test_a_vendor_is_seen(code: str) -> None:
    """In a text, an import, a function's name and a variable's."""
    assert len(list(named(parsed(code)))) == 1


def test_what_a_module_says_of_itself_is_free() -> None:
    """A docstring may tell why something is as it is."""
    assert list(named(parsed('"""As Azure does."""\nX = 1\n"""Of Gemini."""'))) == []


TEXT = """
from services.providers.openai.text import ADAPTER as SPOKEN
from dataclasses import replace
ADAPTER = replace(SPOKEN, name="acme")
"""


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of vendors with one in it, `acme`, that makes texts, beside what vendors share."""
    folder = tmp_path / "probed_vendors"
    for name, files in {"acme": ("text", "telemetry"), "http": ("client",)}.items():
        (folder / name).mkdir(parents=True)
        for file in ("__init__", *files):
            (folder / name / f"{file}.py").touch()
    (folder / "__init__.py").touch()
    (folder / "acme" / "text.py").write_text(TEXT)
    (folder / "acme" / "telemetry.py").write_text('SYSTEMS = {"acme": "acme.ai"}')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("probed_vendors")
    for name in [name for name in sys.modules if name.partition(".")[0] == "probed_vendors"]:
        del sys.modules[name]


def test_a_vendor_is_its_folder(hosts: ModuleType) -> None:
    """What it makes, and how traces call it, is read from there; nothing lists it."""
    assert list(vendors.adapters("text", Adapter, hosts)) == ["acme"]
    assert vendors.adapters("image", Adapter, hosts) == {}
    assert vendors.systems(hosts) == {"acme": "acme.ai"}


def test_a_vendor_without_its_adapter_keeps_the_service_from_starting(hosts: ModuleType) -> None:
    """A module that is named as what it makes, and makes nothing, is a mistake."""
    (Path(hosts.__path__[0]) / "http" / "text.py").touch()
    with pytest.raises(TypeError, match=r"probed_vendors\.http\.text has no ADAPTER"):
        vendors.adapters("text", Adapter, hosts)


def test_two_vendors_of_one_name_are_refused(hosts: ModuleType) -> None:
    """A row's `adapter` would mean either."""
    (Path(hosts.__path__[0]) / "http" / "text.py").write_text(TEXT)
    with pytest.raises(LookupError, match="another vendor's adapter is named 'acme' too"):
        vendors.adapters("text", Adapter, hosts)
