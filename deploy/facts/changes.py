"""What another document of facts would change of the models that a catalogue has, in lines for whoever keeps it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Final

from services.catalogue import Book, Catalogue, Facts, Price, price_at

_FIELDS: Final = ("makes", "context_tokens", "max_output_tokens", "inputs", "outputs", "capabilities", "lacks")
_NANO: Final = 10**9
_SOON: Final = dt.timedelta(days=92)


def lines(catalogue: Catalogue, new: Book, today: dt.date) -> Iterator[str]:
    """Yield what changes of the rows' models, which end, and which are new at their families."""
    old = catalogue.book
    families = sorted({provider.facts for provider in catalogue.providers.values() if provider.facts})
    rows = {
        (provider.facts, name)
        for model in catalogue.models
        if (provider := catalogue.providers[model.provider]).facts
        for name in (model.name, model.id)
    }
    for family, name in sorted(rows):
        before, after = old.facts_of(str(family), name), new.facts_of(str(family), name)
        if before is not None or after is not None:
            yield from (f"{family}/{name}: {change}" for change in _of_row(before, after, today))
    for family in families:
        added = sorted(set(new.ids(family)) - set(old.ids(family)))
        gone = sorted(set(old.ids(family)) - set(new.ids(family)))
        yield from (f"{family}/{name}: new{_words(new.facts_of(family, name), today)}" for name in added)
        yield from (f"{family}/{name}: no longer in the data" for name in gone)


def ends(catalogue: Catalogue, today: dt.date) -> Iterator[str]:
    """Yield the rows whose models have ended, or will within three months, with what answers then."""
    for model in catalogue.models:
        retirement = model.retirement
        if retirement is not None and retirement.date <= today + _SOON:
            word = "ended" if retirement.date <= today else "ends"
            yield f"{model.full_id}: {word} on {retirement.date}; then {retirement.successor} ({retirement.policy})"


def _of_row(before: Facts | None, after: Facts | None, today: dt.date) -> Iterator[str]:
    if before is None or after is None:
        yield f"{'now known' if before is None else 'no longer known'}{_words(after or before, today)}"
        return
    for field in _FIELDS:
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield f"{field}: {_shown(old)} -> {_shown(new)}"
    if (before.retires, before.successor) != (after.retires, after.successor):
        yield f"retires: {before.retires} ({before.successor or '-'}) -> {after.retires} ({after.successor or '-'})"
    yield from _of_prices(before.prices, after.prices, today)


def _of_prices(before: tuple[Price, ...], after: tuple[Price, ...], today: dt.date) -> Iterator[str]:
    days = sorted({today, *(price.since for price in (*before, *after) if price.since > today)})
    for day in days:
        old, new = price_at(before, day), price_at(after, day)
        changed = [
            f"{kind} {_dollars(getattr(old, kind, None))} -> {_dollars(getattr(new, kind, None))}"
            for kind in Price.__struct_fields__
            if kind not in ("since", "tiers", "images") and getattr(old, kind, None) != getattr(new, kind, None)
        ]
        changed += [
            f"{kind} changed" for kind in ("tiers", "images") if getattr(old, kind, ()) != getattr(new, kind, ())
        ]
        if changed:
            yield f"price {'today' if day == today else f'from {day}'}: {', '.join(changed)}"


def _words(facts: Facts | None, today: dt.date) -> str:
    """Return a new model in a few words."""
    if facts is None:
        return ""
    price = price_at(facts.prices, today)
    known = [
        facts.makes or "",
        f"context {facts.context_tokens}" if facts.context_tokens else "",
        f"input {_dollars(price.input)}, output {_dollars(price.output)}" if price is not None else "",
    ]
    return "".join(f", {word}" for word in known if word)


def _dollars(nano: int | None) -> str:
    return "-" if nano is None else f"${nano / _NANO:g}"


def _shown(value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
