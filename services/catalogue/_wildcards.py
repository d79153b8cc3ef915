"""Ids that no row names: which wildcard row covers one, whose it is, and what is known of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final, get_args

from services.catalogue._facts import Facts
from services.catalogue._limits import asked_by
from services.catalogue._listed import Listed, ListedModel
from services.catalogue._model import Model, Provider, Retirement
from services.catalogue._resolving import Ids
from services.common import limits
from services.common.operations import CONTRACTS, Makes

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_STEPS: Final = frozenset({"", ".", ".."})
"""No part of an id between slashes: ids stand in the paths of providers' addresses."""
_NEVER_ASSUMED: Final = frozenset({"prefill", "preview"})
"""What is asked only of a model that is known to do it: one that cannot would answer something else, not refuse."""
_WILDCARDS_ONLY: Final = ("allow", "deny", "assume_price")
_NO_WILDCARDS: Final = ("upstream", "aliases", "retirement", "created")
_MOST_KEPT: Final = 1024
"""How many made models and found names are kept: some of the names come from callers."""
_LONGEST: Final = 250
UNLISTED: Final = "*"
"""What metrics call the models that only a caller has named: labels must not grow by callers' words."""


class WildcardModel(Model, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A model that a wildcard row covers. What nobody knows of it is left to its provider, whose refusal is relayed."""

    covered_by: str
    """The row, as `provider/pattern`."""
    listed: bool = False
    """Whether its provider lists it: it is there, whatever was announced."""
    named: bool = False
    """Whether the provider's list, the kept facts or the operator's file name it, and not its caller alone."""
    known: frozenset[str] = frozenset()
    """What it is known to do."""

    @property
    def row(self) -> str:
        """As `Model.row`."""
        return self.covered_by

    @property
    def label(self) -> str:
        """As `Model.label`."""
        return self.id if self.named else UNLISTED

    @property
    def is_listed(self) -> bool:
        """As `Model.is_listed`."""
        return self.listed

    @property
    def lacks_row(self) -> bool:
        """As `Model.lacks_row`."""
        return True

    @property
    def lacks_price(self) -> bool:
        """As `Model.lacks_price`."""
        return not self.price_list

    @property
    def known_capabilities(self) -> frozenset[str]:
        """As `Model.known_capabilities`."""
        return self.known


def _askable(makes: Makes) -> frozenset[str]:
    contract = CONTRACTS.get(makes)
    words = limits.words(contract.request.DESCRIPTOR) if contract is not None else frozenset()
    return (words | {"reasoning", "search"} if makes == "text" else words) - _NEVER_ASSUMED


_ASKABLE: Final[Mapping[str, frozenset[str]]] = {makes: _askable(makes) for makes in get_args(Makes)}
"""What a model may be asked for of which nobody knows what it can do, by what it makes."""


def is_name(name: str) -> bool:
    """Return whether a caller's name can be a provider's id."""
    return _NAME.fullmatch(name) is not None and _STEPS.isdisjoint(name.split("/"))


def covers(row: Model, name: str) -> bool:
    """Return whether a wildcard row stands for an id."""
    return (
        fnmatchcase(name, row.id)
        and (not row.allow or any(fnmatchcase(name, pattern) for pattern in row.allow))
        and not any(fnmatchcase(name, pattern) for pattern in row.deny)
    )


class Wildcards:
    """The wildcard rows of a snapshot.

    Args:
        rows: In the file's order; of several that cover an id of their provider the first stands for it.
        listed: What providers list, by their ids; nothing of a provider whose list is not known.
        facts: Returns what the kept facts tell of a provider's model, by its owner's name.
    """

    def __init__(
        self,
        rows: Iterable[Model],
        providers: Mapping[str, Provider],
        configured: frozenset[str],
        listed: Mapping[str, Listed],
        facts: Callable[[str, str], Facts | None],
    ) -> None:
        self.rows = tuple(rows)
        self.listed = listed
        self._providers = providers
        self._configured = configured
        self._facts = facts
        self._made: dict[tuple[str, str], WildcardModel] = {}
        self._found: dict[tuple[str, str, str], tuple[WildcardModel, ...]] = {}
        self._ids: dict[str, Ids] = {}
        self._of: dict[str, list[Model]] = {}
        self._prefixes: dict[str, set[str]] = {}
        for row in self.rows:
            self._of.setdefault(row.provider, []).append(row)
            for prefix in (row.provider, *providers[row.provider].prefixes):
                self._prefixes.setdefault(prefix, set()).add(row.provider)

    def of(self, provider: str, name: str) -> WildcardModel | None:
        """Return a provider's model of this very id, where a row covers it."""
        model = self._made.get((provider, name))
        if model is None:
            if provider not in self._of or not is_name(name):
                return None
            row = next((row for row in self._of[provider] if covers(row, name)), None)
            model = self._model(row, name) if row is not None else None
            if model is not None:
                if len(self._made) >= _MOST_KEPT:
                    self._made.clear()
                self._made[provider, name] = model
        return model

    def find(self, name: str, provider: str, makes: str) -> tuple[WildcardModel, ...]:
        """Return whose model a name may mean: one where that is known, none where nobody has it."""
        asked = (name, provider, makes)
        found = self._found.get(asked)
        if found is None:
            found = self._find(*asked)
            if len(self._found) >= _MOST_KEPT:
                self._found.clear()
            if len(name) <= _LONGEST:
                self._found[asked] = found
        return found

    def _find(self, name: str, provider: str, makes: str) -> tuple[WildcardModel, ...]:
        prefix, _, rest = name.partition("/")
        if provider:
            named = {provider}
            if rest and provider in self._prefixes.get(prefix, ()):
                name = rest
        elif rest and prefix in self._prefixes:
            named, name = self._prefixes[prefix], rest
        else:
            named = set()
        of = [each for each in self._of if each in (named or self._configured)]
        if named and not self._configured.isdisjoint(of):
            of = [each for each in of if each in self._configured]
        found = [model for each in of if (model := self.of(each, name)) is not None]
        # Asked for text of a model that makes pictures, its caller is told that, not that there is none.
        fitting = [model for model in found if self._providers[model.provider].makes == makes] or found
        has = [model for model in fitting if model.listed] or self._meant(of, name, makes, prefixed=not named)
        if has := has or [model for model in fitting if model.retirement is not None]:
            return (has[0],)
        if not named:
            fitting = [model for model in fitting if model.provider not in self.listed]
            fitting = [model for model in fitting if model.named] or fitting
        text = [model for model in fitting if self._providers[model.provider].makes == "text"]
        return tuple(text if not makes and len(text) == 1 else fitting[:1] if named else fitting)

    def _meant(self, providers: Iterable[str], name: str, makes: str, *, prefixed: bool) -> list[WildcardModel]:
        """Return the listed models that a name means which is in no list, of those that make this.

        `prefixed`: whether a vendor's name may stand before a slash. Vectors of another snapshot are no answer.
        """
        found = []
        for provider in providers:
            made = self._providers[provider].makes
            if provider not in self.listed or made == "embedding" or makes not in ("", made):
                continue
            if provider not in self._ids:
                self._ids[provider] = Ids(self.listed[provider].models)
            for each in (name, name.partition("/")[2]) if prefixed else (name,):
                listed = each if each in self.listed[provider].models else self._ids[provider].meant(each)
                if listed and (model := self.of(provider, listed)) is not None:
                    found.append(model)
                    break
        return found

    def discovered(self, taken: Collection[str]) -> Iterator[WildcardModel]:
        """Yield the models that providers list and rows cover, but for those whose own name is in `taken`.

        By provider as a name's is found, whichever list came first. Each takes some 30 microseconds.
        """
        for provider in self._of:
            for name in self.listed[provider].models if provider in self.listed else ():
                model = self.of(provider, name) if f"{provider}/{name}" not in taken else None
                if model is not None:
                    yield model

    def _model(self, row: Model, name: str) -> WildcardModel | None:
        """Return what is known of an id that a row covers; None where its list says that it makes something else."""
        provider = self._providers[row.provider]
        listed = self.listed[row.provider].models.get(name) if row.provider in self.listed else None
        if listed is not None and listed.makes not in ("", provider.makes):
            return None
        entry = listed or ListedModel(id=name)
        facts = self._facts(row.provider, entry.base or name)
        known = facts or Facts()
        # Tokens' prices alone do not bound what an image costs, so that no limit in dollars could be kept by them.
        bounded = provider.makes != "image" or all(price.dearest_image() for price in known.prices)
        prices = known.prices if bounded else ()
        can = row.capabilities or entry.capabilities.union(known.capabilities)
        fields = {field: getattr(row, field) for field in row.__struct_fields__}
        fields |= {
            "id": name,
            "upstream": entry.upstream,
            "allow": (),
            "deny": (),
            "assume_price": None,
            "capabilities": row.capabilities or (_ASKABLE[provider.makes] | can).difference(known.lacks, entry.lacks),
            "created": entry.created,
            "context_tokens": row.context_tokens or entry.context_tokens or known.context_tokens or 0,
            "max_output_tokens": row.max_output_tokens or entry.max_output_tokens or known.max_output_tokens or 0,
            "prices": row.prices if row.prices is not None or prices else row.assume_price,
            "known_prices": prices,
            "limits": asked_by(row.limits, known.method) if provider.makes == "text" else row.limits,
            "retirement": self._retirement(row.provider, known),
        }
        return WildcardModel(
            **fields,
            covered_by=row.full_id,
            listed=listed is not None,
            named=listed is not None or facts is not None,
            known=frozenset(can),
        )

    def _retirement(self, provider: str, known: Facts) -> Retirement | None:
        """Return when its owner ends a model and what it names instead, where both are known and that is covered."""
        if known.retires is None or not known.successor:
            return None
        if not any(covers(row, known.successor) for row in self._of[provider]):
            return None
        makes = self._providers[provider].makes
        return Retirement.named(known.retires, f"{provider}/{known.successor}", makes)


def is_covered(full_id: str, rows: Iterable[Model]) -> bool:
    """Return whether one of the rows stands for an id, named as `provider/id`."""
    provider, _, name = full_id.partition("/")
    return is_name(name) and any(row.is_wildcard and row.provider == provider and covers(row, name) for row in rows)


def fault_in(row: Model, provider: Provider) -> str:
    """Return what is wrong with a row as a wildcard, or with one that is none; empty when nothing is."""
    if not row.is_wildcard:
        given = next((field for field in _WILDCARDS_ONLY if getattr(row, field)), "")
        return f"{given}: only a wildcard row, with `*` in its id, has that" if given else ""
    if provider.adapter == "inference":
        return "a wildcard row belongs to a provider that is asked over the network"
    given = next((field for field in _NO_WILDCARDS if getattr(row, field)), "")
    return f"{given}: a wildcard row has none, for it stands for many ids" if given else ""
