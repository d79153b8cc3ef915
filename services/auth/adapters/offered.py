"""What the catalogue offers, for those who write permissions: whether a rule matches anything of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from moa.quota.v1 import quota_pb2
from services.catalogue import Catalogue, CatalogueError, reload, storable_forms
from services.common import logs
from services.common.errors import Conflict, NotFound
from services.quota_client.permissions import matches

_log = logs.get("offered")


@dataclass(frozen=True)
class Offer:
    """The names of one reading of the catalogue."""

    models: frozenset[tuple[str, str]] | None = None
    """Providers and ids of models, virtual ones too; None: nobody knows them."""
    open_ended: frozenset[str] = frozenset()
    """Providers whose models are listed by themselves: anything may be one of theirs."""
    forms: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """Of each provider the ways to give it stored credentials: the variable of each by its name."""

    def warning(self, rule: quota_pb2.Rule) -> str:
        """Return why a rule permits nothing; empty where it matches a model, or may match one."""
        provider, model = rule.provider or "*", rule.model or "*"
        if self.models is None or any(matches(provider, name) for name in self.open_ended):
            return ""
        known = {name for name, _ in self.models}
        if not any(matches(provider, name) for name in known):
            return f"no provider of the catalogue is called {provider!r}, so it permits nothing"
        if not any(matches(provider, name) and matches(model, each) for name, each in self.models):
            return f"no model of {provider!r} in the catalogue is called {model!r}, so it permits nothing"
        return ""


_NOTHING_KNOWN: Final = Offer()


class Offered:
    """Reads the catalogue when it is asked, and again when its file has changed.

    Args:
        path: The catalogue's file. One that cannot be read warns of nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._offer = _NOTHING_KNOWN
        self._reading = asyncio.Lock()

    async def warnings(self, rules: Iterable[quota_pb2.Rule]) -> list[str]:
        """Return why each rule permits nothing; empty where it may permit something."""
        offer = await self._now()
        return [offer.warning(rule) for rule in rules]

    async def forms(self, provider_id: str) -> Sequence[Mapping[str, str]]:
        """Return the ways to give a provider stored credentials. Raises NotFound, and Conflict where nobody knows."""
        offer = await self._now()
        forms = offer.forms.get(provider_id)
        if forms is None and offer.models is None:
            raise Conflict(
                f"whether there is a provider {provider_id!r} is unknown, for the catalogue cannot be read: mend it"
                " (GET /admin/catalogue tells its fault), then set the key"
            )
        if forms is None:
            raise NotFound(f"the catalogue has no provider {provider_id!r}; GET /admin/providers lists them")
        return forms

    async def _now(self) -> Offer:
        async with self._reading:
            try:
                found = self._path.stat()
                stamp = found.st_mtime_ns, found.st_size
                if stamp != self._stamp:
                    self._offer = _offer(await reload(self._path))
                    self._stamp = stamp
            except (CatalogueError, OSError) as error:
                _log.warning("catalogue.unreadable", why=str(error))
                # Keys of the providers that there were can be set all the same: other processes go by a copy.
                self._offer, self._stamp = Offer(forms=self._offer.forms), None
            return self._offer


def _offer(catalogue: Catalogue) -> Offer:
    models = {(model.provider, model.id) for model in catalogue.models}
    # A variant of a provider (`openai-text@eu`) has its models.
    variants = [(name, base) for name in catalogue.providers if (base := name.partition("@")[0]) != name]
    models |= {(name, model) for name, base in variants for provider, model in models if provider == base}
    forms = {name: storable_forms(provider) for name, provider in catalogue.providers.items()}
    return Offer(frozenset(models), catalogue.open_ended_providers, forms)
