"""What variables say of providers: those of the process, and stored ones where those say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from services.catalogue._model import Provider

STORABLE: Final = frozenset(("api_key", "access_key", "secret_key", "tenant_id", "client_id", "client_secret"))
"""Credentials that can be stored: the others are temporary, or are found by something else on the machine."""


def storable_forms(provider: Provider) -> list[Mapping[str, str]]:
    """Return the ways by which a provider can be given stored credentials: the variable of each by its name."""
    ways = (provider.credentials, *provider.alternatives)
    forms = [way for number, way in enumerate(ways) if way and way not in ways[:number]]
    return [way for way in forms if way.keys() <= STORABLE]


class Environment(Mapping[str, str]):
    """A process's variables over stored ones, which may change. What the process has wins.

    Args:
        own: The process's.
    """

    def __init__(self, own: Mapping[str, str]) -> None:
        self.own = own
        self.version = 0
        """Grows whenever other variables are stored than before; not with a new value of one."""
        self._stored: Mapping[str, str] = {}

    def store(self, stored: Mapping[str, str]) -> frozenset[str]:
        """Take what is stored now; return the variables whose stored values are others than before."""
        before, self._stored = self._stored, dict(stored)
        changed = frozenset(
            name for name in before.keys() | stored.keys() if before.get(name) != self._stored.get(name)
        )
        self.version += before.keys() != self._stored.keys()
        return changed

    def has_own(self, variable: str) -> bool:
        """Return whether the process itself is told a variable, or the file that holds it."""
        return bool(self.own.get(variable) or self.own.get(f"{variable}_FILE"))

    def __getitem__(self, variable: str) -> str:
        if variable in self._stored and not self.has_own(variable):
            return self._stored[variable]
        return self.own[variable]

    def __iter__(self) -> Iterator[str]:
        return iter(self.own.keys() | self._stored.keys())

    def __len__(self) -> int:
        return len(self.own.keys() | self._stored.keys())
