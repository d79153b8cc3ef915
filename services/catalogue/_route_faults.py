"""What is wrong with the virtual models of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.catalogue._faults import nearest
from services.catalogue._model import Model, Provider
from services.catalogue._route import LONGEST_TAG_BYTES, MODALITIES, MOST_TARGETS, Route, RouteTarget, When
from services.catalogue._wildcards import is_covered


def fault_of(
    routes: Iterable[Route], providers: Mapping[str, Provider], models: Iterable[Model], capabilities: frozenset[str]
) -> str:
    """Return what is wrong with variants and virtual models: the row, the field, the nearest known word.

    Empty for nothing.
    """
    return _variants_fault(providers) or _Checked(routes, providers, models, capabilities).fault()


def _variants_fault(providers: Mapping[str, Provider]) -> str:
    for provider in providers.values():
        for name in provider.variants:
            if provider.adapter == "inference":
                return f"provider {provider.id}: variants: its models run here, and have no other key or region"
            if f"{provider.id}@{name}" in providers:
                return f"provider {provider.id}: variants: a provider has the id {provider.id}@{name}"
    return ""


def _tags_fault(when: When) -> str:
    """Return why no request could have the tags of a condition: a target that is never asked is a slip."""
    for field, tags in (("tags", when.tags), ("without_tags", when.without_tags)):
        for tag in tags:
            if "," in tag or tag != tag.strip():
                return f"when.{field}: no request has the tag {tag!r}: commas part tags, without the space around"
            if len(tag.encode()) > LONGEST_TAG_BYTES:
                return f"when.{field}: no request has a tag of more than {LONGEST_TAG_BYTES} bytes: {tag!r}"
    if when.tags and not (set(when.tags) - set(when.without_tags)):
        return "when.without_tags: no request has one of its tags and none of these"
    return ""


class _Checked:
    """The rows that virtual models name, by name."""

    def __init__(
        self,
        routes: Iterable[Route],
        providers: Mapping[str, Provider],
        models: Iterable[Model],
        capabilities: frozenset[str],
    ) -> None:
        self._rows = list(routes)
        self._routes = {route.id: route for route in self._rows}
        self._providers = providers
        self._words = capabilities | MODALITIES
        self._models: dict[str, list[Model]] = {}
        self._aliases: set[str] = set()
        self._all = tuple(models) if self._rows else ()
        for model in (model for model in self._all if not model.is_wildcard):
            for name in (model.id, model.full_id):
                self._models.setdefault(name, []).append(model)
            self._aliases.update(model.aliases)

    def fault(self) -> str:
        """Return what is wrong; empty for nothing."""
        if self._rows and (taken := sorted(name for name in self._providers if name.startswith("virtual-"))):
            return f"provider {taken[0]}: ids that begin with virtual- are those of the virtual models"
        seen: set[str] = set()
        for route in self._rows:
            if route.id in seen:
                return f"route {route.id} stands twice"
            seen.add(route.id)
            if route.id in self._models or route.id in self._aliases:
                return f"route {route.id}: id: a model has this name; give the virtual model another"
            for number, target in enumerate(route.targets, 1):
                if fault := self._target_fault(target):
                    return f"route {route.id}: targets: number {number} ({target.model}): {fault}"
            if fault := self._shares_fault(route):
                return f"route {route.id}: targets: {fault}"
        return self._nesting_fault() or self._makes_fault()

    def _target_fault(self, target: RouteTarget) -> str:
        if target.canary is not None and target.shadow is not None:
            return "it is either a canary or a shadow"
        for word in target.when.needs:
            if word not in self._words:
                return f"when.needs: nobody knows {word!r}{nearest(word, self._words)}"
        if fault := _tags_fault(target.when):
            return fault
        most = target.when.max_prompt_tokens
        if most is not None and most < target.when.min_prompt_tokens:
            return "when.max_prompt_tokens: it is less than min_prompt_tokens"
        if target.model in self._routes:
            return "shadow: it has to be a model, not a virtual one" if target.shadow is not None else ""
        found = self._named(target.model)
        if len(found) > 1:
            return f"model: it may be {' or '.join(one.full_id for one in found)}"
        return "" if found else self._unknown(target.model)

    def _unknown(self, name: str) -> str:
        provider, _, rest = name.partition("/")
        base, mark, variant = provider.partition("@")
        row = self._providers.get(base)
        if mark and row is not None and variant not in row.variants and f"{base}/{rest}" in self._models:
            return f"model: provider {base} has no variant {variant!r}{nearest(variant, row.variants)}"
        return f"model: there is no {name!r}{nearest(name, [*self._models, *self._routes])}"

    def _named(self, name: str) -> list[Model]:
        """Return the models that a target's name may mean; of a variant the provider's own."""
        if found := self._models.get(name):
            return found
        provider, _, rest = name.partition("/")
        base, mark, variant = provider.partition("@")
        row = self._providers.get(base)
        if row is None or (mark and variant not in row.variants):
            return []
        if is_covered(f"{base}/{rest}", self._all):
            return self._models.get(f"{base}/{rest}", [Model(id=rest, provider=base)])
        return self._models.get(f"{base}/{rest}", []) if mark else []

    @staticmethod
    def _shares_fault(route: Route) -> str:
        if route.canaries > 1:
            return "canary: the shares come to more than 1"
        if all(target.canary is not None or target.shadow is not None for target in route.targets):
            return "there is none but canaries and shadows"
        return ""

    def _nesting_fault(self) -> str:
        sizes: dict[str, int] = {}
        for route in self._rows:
            if line := self._sized(route.id, (), sizes):
                return f"route {line[0]}: targets: it comes round to itself ({' > '.join(line)})"
        for route in self._rows:
            if sizes[route.id] > MOST_TARGETS:
                return f"route {route.id}: targets: they come to more than {MOST_TARGETS}"
        return ""

    def _sized(self, name: str, line: tuple[str, ...], sizes: dict[str, int]) -> tuple[str, ...]:
        """Note how many targets a virtual model comes to; return the names of a circle, where it leads into one."""
        if name in line:
            return (*line[line.index(name) :], name)
        if name not in sizes:
            total = 0
            for target in self._routes[name].targets:
                if target.model not in self._routes:
                    total += 1
                elif circle := self._sized(target.model, (*line, name), sizes):
                    return circle
                else:
                    total += sizes[target.model]
            sizes[name] = total
        return ()

    def _makes_fault(self) -> str:
        for route in self._rows:
            made = {self._providers[model.provider].makes: model for model in self._leaves(route)}
            if len(made) > 1:
                words = ", ".join(f"{model.full_id} makes {makes}" for makes, model in made.items())
                return f"route {route.id}: targets: all have to make the same, and {words}"
            if "vision" in made:
                return f"route {route.id}: targets: callers see no vision models"
        return ""

    def _leaves(self, route: Route) -> Iterable[Model]:
        for target in route.targets:
            if target.model in self._routes:
                yield from self._leaves(self._routes[target.model])
            else:
                yield self._named(target.model)[0]
