"""Which names a caller may have meant by one that no model has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Final

from services.catalogue._model import Model
from services.catalogue._snapshot import Catalogue, UnknownModel
from services.common.errors import ModelNotFound

MOST: Final = 3
"""How many names are told."""
_MOST_COMPARED: Final = 300
_ALIKE: Final = 0.75
"""From which ratio on two names are alike by their letters."""
_LEAST: Final = 3
"""Letters of which a name must have some to be looked for in others."""
_LONGEST: Final = 100
_PARTS: Final = re.compile(r"[^a-z0-9]+")


def worded(refusal: UnknownModel, catalogue: Catalogue, may: Callable[[Model], bool], *, listed: str) -> ModelNotFound:
    """Return the refusal of an unknown model that names those which its caller may have meant.

    `may` tells whether the caller may use a model; `listed` is what is told where no name is near.
    """
    able = (
        model
        for model in (*catalogue.models, *catalogue.discovered)
        if catalogue.is_reachable(model)
        and refusal.provider in ("", model.provider)
        and refusal.makes in ("", catalogue.makes(model))
        and may(model)
    )
    if may_be := [model.full_id for model in refusal.may_be if may(model)][:MOST]:
        return refusal.with_step(f"its provider is not known here; use {' or '.join(may_be)}")
    near = nearest(refusal.name, able)
    return refusal.with_step(
        f"use {' or '.join((', '.join(near[:-1]), near[-1]) if near[1:] else near)}" if near else listed
    )


def nearest(name: str, models: Iterable[Model]) -> list[str]:
    """Return the names of models that are like this one, the likest first and one for each model.

    Names are compared without case and without what stands before their last slash: by their letters, by their
    beginnings, by whether one is in the other, and by the words that both have.
    """
    if len(name) > _LONGEST:
        return []
    asked = _plain(name)
    words = _words(asked)
    matcher = difflib.SequenceMatcher(b=asked, autojunk=False)
    found: dict[str, tuple[float, int]] = {}
    # Providers list hundreds: those that begin alike are compared before the rest.
    first = sorted(models, key=lambda model: not _plain(model.id).startswith(asked[:_LEAST]))
    for place, model in enumerate(first[:_MOST_COMPARED]):
        scores = {known: _likeness(asked, words, known, matcher) for known in (model.id, *model.aliases)}
        called = max(scores, key=lambda known: scores[known])
        best = scores[called]
        if best > 0 and best > found.get(called, (0.0, 0))[0]:
            found[called] = (best, -place)
    return sorted(found, key=lambda known: found[known], reverse=True)[:MOST]


def _likeness(asked: str, words: frozenset[str], known: str, matcher: difflib.SequenceMatcher[str]) -> float:
    """Return how like a known name is to what was asked for; 0 where it is not."""
    name = _plain(known)
    if name == asked:
        return 3.0
    matcher.set_seq1(name)
    ratio = matcher.ratio() if matcher.real_quick_ratio() >= _ALIKE and matcher.quick_ratio() >= _ALIKE else 0.0
    if ratio >= _ALIKE:
        return 2.0 + ratio
    shorter, longer = sorted((asked, name), key=len)
    part = len(shorter) / len(longer) if len(shorter) >= _LEAST else 0.0
    if part and longer.startswith(shorter):
        return 1.5 + part / 2
    shared = len(words & _words(name)) / len(words) if words else 0.0
    if part and shorter in longer:
        return 1.0 + part / 2
    return shared


def _plain(name: str) -> str:
    return name.casefold().rpartition("/")[2]


def _words(name: str) -> frozenset[str]:
    """Return the words of a name; numbers alone say nothing of a model."""
    return frozenset(word for word in _PARTS.split(name) if len(word) >= _LEAST and not word.isdecimal())
