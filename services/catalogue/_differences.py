"""What becomes other from one snapshot to the next, row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec

from services.catalogue._route import ADAPTER
from services.catalogue._snapshot import Catalogue


class Difference(NamedTuple):
    """A row that one snapshot has and the other has not, or has otherwise."""

    kind: str
    """`added`, `removed` or `changed`."""
    what: str
    """`provider`, `model` or `route`."""
    name: str
    fields: tuple[str, ...] = ()
    """Which of its fields are others, where it is changed."""


def differences(before: Catalogue, after: Catalogue, *, but: Collection[str] = ()) -> Iterator[Difference]:
    """Yield what is other in `after`; what fields that are named `but` say is passed over."""
    for what, old, new in zip(("provider", "model", "route"), _rows(before), _rows(after), strict=True):
        for name in old.keys() - new.keys():
            yield Difference("removed", what, name)
        for name, row in new.items():
            known = old.get(name)
            if known is None:
                yield Difference("added", what, name)
            elif fields := tuple(
                field
                for field in row.__struct_fields__
                if field not in but and getattr(row, field) != getattr(known, field, None)
            ):
                yield Difference("changed", what, name, fields)


def _rows(catalogue: Catalogue) -> tuple[Mapping[str, msgspec.Struct], ...]:
    """Return providers, models and virtual models by their names."""
    providers = {name: row for name, row in catalogue.providers.items() if row.adapter != ADAPTER}
    routes = {model.id: route[0] for model in catalogue.models if (route := catalogue.route(model)) is not None}
    models = {row.full_id: row for row in (*catalogue.models, *catalogue.wildcards) if catalogue.route(row) is None}
    return providers, models, routes
