"""Dialects are found by their packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import services.router.dialects
import services.tasks.dialects
from services.common import dialects
from services.common.dialects import Dialect
from services.common.dialects.registrations import Registration, registrations
from services.tasks.dialects.parts import TaskRegistration

REGISTRATION = """
from google.protobuf import empty_pb2
from services.common.dialects.registrations import Registration

REGISTRATION = Registration(contract=empty_pb2.DESCRIPTOR, serve=lambda server, parts: server.append(parts))
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A service's package of dialects with one in it, `another`, beside a module that is none."""
    folder = tmp_path / "probed_host" / "another"
    folder.mkdir(parents=True)
    for path in (folder / "__init__.py", folder.parent / "__init__.py", folder.parent / "helper.py"):
        path.touch()
    (folder / "registration.py").write_text(REGISTRATION)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("probed_host")
    for name in [name for name in sys.modules if name.partition(".")[0] == "probed_host"]:
        del sys.modules[name]


def test_a_dialect_is_its_package_and_a_line_of_the_registry(host: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else names a dialect that a service serves."""
    monkeypatch.setattr(
        "services.common.dialects.registrations.DIALECTS",
        {**dialects.DIALECTS, "another": Dialect(name="another", envelope={})},
    )
    served: list[object] = []
    for each in registrations(host, Registration):
        each.serve(served, "parts")  # type: ignore[arg-type]  # What is served here is a list.
    assert served == ["parts"]
    with pytest.raises(TypeError, match="another registers no TaskRegistration"):
        registrations(host, TaskRegistration)


def test_a_package_without_its_line_is_refused(host: ModuleType) -> None:
    """A dialect whose errors nobody words does not start."""
    with pytest.raises(LookupError, match="another"):
        registrations(host, Registration)


@pytest.mark.parametrize("package", [services.router.dialects, services.tasks.dialects])
def test_methods_are_the_contracts(package: ModuleType) -> None:
    """What is told of a method is told of one that there is, of a service whose failures its dialect words."""
    for each in registrations(package, Registration):
        methods = {
            f"{service.name}.{method.name}"
            for service in each.contract.services_by_name.values()
            for method in service.methods
        }
        assert each.methods.keys() <= methods
        assert set(each.services) <= dialects.BY_SERVICE.keys()
