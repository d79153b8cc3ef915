"""Fill in what rows do not say by what the kept facts tell; what a row says stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from services.catalogue._facts import Book, Facts, Word
from services.catalogue._limits import asked_by
from services.catalogue._model import Model, Provider, Retirement
from services.catalogue._prices import Prices, price_list
from services.catalogue._wildcards import is_covered

_FROM_FACTS: Final = frozenset(get_args(Word))
"""The capabilities that facts tell of."""


def filled(
    models: Sequence[Model], written: Sequence[Collection[str]], providers: Mapping[str, Provider], book: Book
) -> list[Model]:
    """Return rows with what is known of their models; `written` are the fields that each row has in its file."""
    facts = [_facts_of(model, providers[model.provider], book) for model in models]
    rows = [
        model if known is None else _filled(model, fields, providers[model.provider], known)
        for model, fields, known in zip(models, written, facts, strict=True)
    ]
    return _retiring(rows, facts, providers)


def _facts_of(model: Model, provider: Provider, book: Book) -> Facts | None:
    """Return what is known of a row's model by its owner's name, or by the row's, where that is another."""
    if provider.facts is None:
        return None
    return book.facts_of(provider.facts, model.name) or book.facts_of(provider.facts, model.id)


def _filled(model: Model, written: Collection[str], provider: Provider, facts: Facts) -> Model:
    bounds = isinstance(model.prices, Prices) and model.prices.bounds_alone
    known: dict[str, Any] = {"known_prices": price_list(model.prices, facts.prices) if bounds else facts.prices}
    if provider.makes != "image":
        # What image models are asked for is bounded by their limits.
        known["context_tokens"] = facts.context_tokens
    if provider.makes == "text":
        known["max_output_tokens"] = facts.max_output_tokens
        known["capabilities"] = capabilities(provider, facts) if facts.makes == "text" else None
    changed = {name: value for name, value in known.items() if value and name not in written}
    if provider.makes == "text":
        changed["limits"] = asked_by(model.limits, facts.method)
    if bounds and facts.prices:
        changed["prices"] = None
    return msgspec.structs.replace(model, **changed) if changed else model


def capabilities(provider: Provider, facts: Facts) -> frozenset[str]:
    """Return what a model can do by its facts, as far as its provider's protocol carries it.

    What facts never tell of is the protocol's to give.
    """
    carried = provider.capabilities
    return (carried & frozenset(facts.capabilities)) | (carried - _FROM_FACTS)


def _retiring(rows: list[Model], facts: Sequence[Facts | None], providers: Mapping[str, Provider]) -> list[Model]:
    """Return rows with the ends that their owners named, where the successor is here and its own line ends."""
    at = {name: number for number, row in enumerate(rows) for name in (row.full_id, f"{row.provider}/{row.name}")}
    named: dict[str, int] = {}
    for number, row in enumerate(rows):
        named.setdefault(row.id, number)
        named[row.full_id] = number
    line: dict[int, int] = {}
    for number, row in enumerate(rows):
        if row.retirement is not None and row.retirement.successor in named:
            line[number] = named[row.retirement.successor]
    for number, (row, known) in enumerate(zip(rows, facts, strict=True)):
        if row.retirement is not None or known is None or known.retires is None:
            continue
        name = f"{row.provider}/{known.successor}"
        after = at.get(name)
        if after is not None and number not in _line_of(after, line):
            line[number] = after
            name = rows[after].full_id
        elif after is not None or not is_covered(name, rows):
            continue
        retirement = Retirement.named(known.retires, name, providers[row.provider].makes)
        rows[number] = msgspec.structs.replace(row, retirement=retirement)
    return rows


def _line_of(number: int, line: Mapping[int, int]) -> set[int]:
    """Return a row and those that follow it, each after the one before has ended."""
    found = {number}
    while (after := line.get(number)) is not None and after not in found:
        found.add(after)
        number = after
    return found
