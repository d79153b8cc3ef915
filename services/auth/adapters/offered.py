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

_MADE: Final = {
    quota_pb2.OPERATION_TEXT: frozenset({"text", "embedding"}),
    quota_pb2.OPERATION_IMAGE: frozenset({"image"}),
    quota_pb2.OPERATION_TASK: frozenset({"text", "image", "embedding"}),
}
"""What models make that an operation may ask."""
_OPERATIONS: Final = {quota_pb2.OPERATION_TEXT: "text", quota_pb2.OPERATION_IMAGE: "image"}
PERMITS_NOTHING: Final = "it permits nothing"
COUNTS_NOTHING: Final = "it counts nothing"


@dataclass(frozen=True)
class Offer:
    """The names of one reading of the catalogue."""

    models: Mapping[tuple[str, str], str] | None = None
    """What each model makes, virtual ones too, by provider and id; None: nobody knows them."""
    open_ended: Mapping[str, str] = field(default_factory=dict)
    """What providers make whose models are listed by themselves: anything may be one of theirs."""
    forms: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """Of each provider the ways to give it stored credentials: the variable of each by its name."""

    def warning(self, rule: quota_pb2.Rule, so: str) -> str:
        """Return why a rule matches nothing, and what follows; empty where it matches a model, or may match one."""
        provider, model = rule.provider or "*", rule.model or "*"
        if self.models is None:
            return ""
        wanted = frozenset[str]().union(*(_MADE.get(one, ()) for one in rule.operations))
        if any(matches(provider, name) and (not wanted or made in wanted) for name, made in self.open_ended.items()):
            return ""
        known = {name for name, _ in self.models} | self.open_ended.keys()
        if not any(matches(provider, name) for name in known):
            return f"no provider of the catalogue is called {provider!r}, so {so}"
        made = {
            makes for (name, each), makes in self.models.items() if matches(provider, name) and matches(model, each)
        }
        if not made and not any(matches(provider, name) for name in self.open_ended):
            return f"no model of {provider!r} in the catalogue is called {model!r}, so {so}"
        if wanted and not made & wanted:
            asked = " or ".join(_OPERATIONS[one] for one in sorted(set(rule.operations)))
            return f"no model of {provider!r} called {model!r} in the catalogue is asked for {asked}, so {so}"
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

    async def warnings(self, rules: Iterable[quota_pb2.Rule], so: str = PERMITS_NOTHING) -> list[str]:
        """Return why each rule matches nothing, and what follows (`so`); empty where it may match something."""
        offer = await self._now()
        return [offer.warning(rule, so) for rule in rules]

    async def numbered(self, rules: Iterable[quota_pb2.Rule]) -> list[str]:
        """Return the warnings of a list of rules, each with the place of its rule in it."""
        return [f"rules[{at}]: {text}" for at, text in enumerate(await self.warnings(rules)) if text]

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
    models = {(model.provider, model.id): catalogue.makes(model) for model in catalogue.models}
    # A variant of a provider (`openai-text@eu`) has its models.
    variants = [(name, base) for name in catalogue.providers if (base := name.partition("@")[0]) != name]
    models |= {
        (name, model): makes
        for name, base in variants
        for (provider, model), makes in models.items()
        if provider == base
    }
    listed = catalogue.open_ended_providers
    open_ended = {
        name: provider.makes for name, provider in catalogue.providers.items() if name.partition("@")[0] in listed
    }
    forms = {name: storable_forms(provider) for name, provider in catalogue.providers.items()}
    return Offer(models, open_ended, forms)
