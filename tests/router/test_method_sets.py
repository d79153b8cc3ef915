"""A dialect's methods are what the modules of its package declare."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from moa.router.v1 import openai_service_pb2
from services.router.dialects.methods import method_sets, registered

MODULE = """
from services.common.dialects.registrations import Method
from services.router.dialects.methods import MethodSet

METHODS = MethodSet(
    servicer=lambda parts, dialect: None, methods=dict.fromkeys({methods}, Method()), fields={fields}
)
"""
ALL = sorted(method.name for method in openai_service_pb2.DESCRIPTOR.services_by_name["OpenAIService"].methods)
Writes = Callable[..., ModuleType]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writes]:
    """Write a dialect's package: its modules' methods and names of fields."""
    folder = tmp_path / "probed_dialect"
    folder.mkdir()
    for name in ("__init__", "registration", "helper"):
        (folder / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**modules: tuple[list[str], dict[str, str]]) -> ModuleType:
        for name, (methods, fields) in modules.items():
            (folder / f"{name}.py").write_text(MODULE.format(methods=methods, fields=fields))
        return importlib.import_module("probed_dialect")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "probed_dialect"]:
        del sys.modules[name]


def test_methods_and_names_are_gathered_from_every_module(package: Writes) -> None:
    """A further operation in a dialect is a module more: nothing else names it."""
    written = package(one=(ALL[:2], {"texts": "input"}), two=(ALL[2:], {"texts": "input", "count": "n"}))
    assert len(method_sets(written)) == 2
    registration = registered(openai_service_pb2.DESCRIPTOR, written)
    assert sorted(registration.methods) == [f"OpenAIService.{name}" for name in ALL]
    (dialect,) = registration.dialects.values()
    assert (dialect.name, dialect.spelled("texts[1]"), dialect.spelled("count")) == ("openai", "input", "n")


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        ((ALL[:-1], {}), ([], {}), f"no module declares moa.router.v1.OpenAIService.{ALL[-1]}"),
        ((ALL, {}), (ALL[:1], {}), f"{ALL[0]} is declared by two modules"),
        (([*ALL, "Sing"], {}), ([], {}), "has no method Sing"),
        ((ALL[:1], {"count": "n"}), (ALL[1:], {"count": "number"}), "calls the field count both n and number"),
    ],
)
def test_what_does_not_fit_the_contract_does_not_start(
    package: Writes, one: tuple[list[str], dict[str, str]], two: tuple[list[str], dict[str, str]], told: str
) -> None:
    """Every method has one module, and every field one name."""
    written = package(one=one, two=two)
    with pytest.raises(LookupError, match=told):
        registered(openai_service_pb2.DESCRIPTOR, written)
