"""Join what the packages tell to one document, and write it: a model a line, so that a change is seen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from deploy.facts.abilities import Table, models
from deploy.facts.dated_prices import Dated
from services.catalogue import ALWAYS, Document, Facts, Price, Source, price_at

_ORDER: Final = ("openai", "azure", "gemini", "bedrock", "anthropic", "stability")


def joined(
    prices: Mapping[str, Dated], table: Table, sources: Sequence[Source], taken: dt.date, before: Document | None
) -> Document:
    """Return the document that both packages make; `before` is the one that it follows.

    Prices are of the package that dates them, where it has the model. A price that differs from what `before` says of
    the same days, with no date of its own, holds from `taken` on: what was charged by stays as it was.
    """
    families: dict[str, dict[str, Facts]] = {family: {} for family in _ORDER}
    for family, model_id, facts in models(table):
        families[family][model_id] = _priced(facts, prices.get(family), model_id, taken)
    for family, dated in prices.items():
        for model_id in dated.ids():
            if model_id not in families[family] and not model_id.startswith(("regional.", "ft:")):
                families[family][model_id] = _priced(Facts(), dated, model_id, taken)
    old = before.families if before is not None else {}
    for family, known in families.items():
        for model_id, facts in known.items():
            successor = facts.successor if facts.successor in known else ""
            then = old.get(family, {}).get(model_id)
            dates = continued(facts.prices, then.prices, before.taken, taken) if before and then else facts.prices
            known[model_id] = msgspec.structs.replace(
                facts, successor=successor, prices=dates, max_output_tokens=_longest_answer(facts)
            )
    return Document(format=1, taken=taken, sources=tuple(sources), families=families)


def written(document: Document) -> bytes:
    """Return a document's text."""
    head = msgspec.to_builtins(document)
    families = head.pop("families")
    lines = [f' "{name}": {msgspec.json.encode(value).decode()},' for name, value in head.items()]
    blocks = []
    for family, known in families.items():
        rows = (f'   "{name}": {msgspec.json.encode(known[name]).decode()}' for name in sorted(known))
        blocks.append(f'  "{family}": {{\n' + ",\n".join(rows) + "\n  }")
    return ("{\n" + "\n".join(lines) + '\n "families": {\n' + ",\n".join(blocks) + "\n }\n}\n").encode()


def _priced(facts: Facts, dated: Dated | None, model_id: str, taken: dt.date) -> Facts:
    """Return facts with the prices of the package that dates them.

    It matches names by their parts, and so a region's name with its base price: where its entry is not the very id, and
    the table, whose ids are, asks more, the table's hold.
    """
    entry = dated.model(model_id) if dated is not None else None
    if entry is None or dated is None:
        return facts
    changed = {"context_tokens": _context(entry.get("context_window"), facts)}
    found = dated.prices(entry)
    if not found or (entry["id"] != model_id and _is_dearer(facts.prices, found, taken)):
        return msgspec.structs.replace(facts, **changed)
    (own,) = facts.prices or (Price(since=ALWAYS),)
    prices = tuple(msgspec.structs.replace(price, image=own.image, images=own.images) for price in found)
    return msgspec.structs.replace(facts, prices=prices, **changed)


def _is_dearer(one: tuple[Price, ...], other: tuple[Price, ...], day: dt.date) -> bool:
    """Return whether by one list a token of prompt, or one of completion, costs more on a day than by the other."""
    mine, its = price_at(one, day), price_at(other, day)
    if mine is None or its is None:
        return mine is not None
    return (mine.input or 0) > (its.input or 0) or (mine.output or 0) > (its.output or 0)


def _context(window: int | None, facts: Facts) -> int | None:
    """Return the context: the package's, which rounds it, where it is not below the longest prompt that is known."""
    longest = facts.context_tokens
    if window is None or longest is None:
        return longest or window
    return window if longest <= window <= longest + (facts.max_output_tokens or 0) else longest


def _longest_answer(facts: Facts) -> int | None:
    """Return the longest answer; none where it would fill the context, which tables say where nobody told them it.

    Whoever is asked for so much refuses it: as an unknown length, it is not asked for.
    """
    return facts.max_output_tokens if facts.max_output_tokens != facts.context_tokens else None


def continued(new: tuple[Price, ...], old: tuple[Price, ...], known_on: dt.date, taken: dt.date) -> tuple[Price, ...]:
    """Return prices that are `old` up to the day that these were known on, and `new` behind it.

    What `new` says otherwise of that day, with no date of its own since, holds from `taken` on.
    """
    if not new or not old:
        return new or old
    dated = {price.since: price for price in old if price.since <= known_on}
    if not dated:
        return new
    ahead = {price.since: price for price in new if price.since > known_on}
    then, now = price_at(tuple(dated.values()), known_on), price_at(new, known_on)
    undated = min(ahead, default=dt.date.max) > taken
    if undated and now is not None and then is not None and msgspec.structs.replace(now, since=then.since) != then:
        dated[taken] = msgspec.structs.replace(now, since=taken)
    dated |= ahead
    return tuple(dated[since] for since in sorted(dated))
