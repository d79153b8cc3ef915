"""The vendors that there are: packages of this one, each with a module for what it makes and how traces call it.

`text`, `image` and `embedding` have an `ADAPTER`, `telemetry` holds `SYSTEMS`; a vendor has what it needs. Nothing
lists vendors: another one is its package, and rows of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from services import providers

_TRACED: Final = "telemetry"


class Named(Protocol):
    """An adapter, of whatever kind."""

    @property
    def name(self) -> str:
        """What catalogue rows write as `adapter`."""


A = TypeVar("A", bound=Named)


def adapters(part: str, kind: type[A], package: ModuleType = providers) -> Mapping[str, A]:
    """Return the adapters of what vendors make (`text`, `image` or `embedding`), by name.

    Raises TypeError for a vendor whose module holds another kind, LookupError for two of one name.
    """
    found: dict[str, A] = {}
    for module in _modules(part, package):
        adapter: Any = getattr(module, "ADAPTER", None)
        if not isinstance(adapter, kind):
            raise TypeError(f"{module.__name__} has no ADAPTER that is a {kind.__module__}.{kind.__name__}")
        if adapter.name in found:
            raise LookupError(f"{module.__name__}: another vendor's adapter is named {adapter.name!r} too")
        found[adapter.name] = adapter
    return found


def systems(package: ModuleType = providers) -> Mapping[str, str]:
    """Return what traces call vendors, by adapter; one that is not here is called as its adapter."""
    return {adapter: name for module in _modules(_TRACED, package) for adapter, name in module.SYSTEMS.items()}


def _modules(name: str, package: ModuleType) -> Iterator[ModuleType]:
    for vendor in iter_modules(package.__path__, f"{package.__name__}."):
        if vendor.ispkg and find_spec(f"{vendor.name}.{name}") is not None:
            yield import_module(f"{vendor.name}.{name}")
