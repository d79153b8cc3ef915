"""Whether what of a request leaves no trace in what a provider is sent is named, and refused of a strict caller.

Tests of each operation say what becomes of a request of theirs; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from services.catalogue import Model, Provider
from services.common.errors import MoaError
from tests import shipped

Json = dict[str, Any]

Sent = Callable[[str, Json, Model, Provider, bool], tuple[object, list[str]]]
"""Returns what becomes of a request, and what of it is named as ignored, from its dialect, what it holds beside the
least, who answers, and whether its caller is strict."""

GOOGLE: Final[dict[str, Json]] = {
    "seed": {"generationConfig": {"seed": 7}},
    "safetySettings": {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
    "unknown": {"somethingNew": 1},
    "unknown config": {"generationConfig": {"somethingNew": 1}},
}
"""Of Google's bodies, whatever they ask for."""


def cases(fields: dict[str, dict[str, Json]]) -> list[tuple[str, str]]:
    """Return the dialects with their fields, as a table of cases."""
    return [(dialect, field) for dialect, given in fields.items() for field in given]


def check(name: str, dialect: str, given: Json, sent: Sent, *, plain: Json, unable: type[MoaError] = MoaError) -> None:
    """Check that what is not passed, or passed as another value than its own, is among the ignored.

    Args:
        name: Who answers.
        dialect: Whose body it is.
        given: The field.
        sent: What becomes of a request.
        plain: What stands beside a field that means nothing alone.
        unable: How a model refuses what it cannot do, which is no silence.
    """
    catalogue = shipped.catalogue()
    model = catalogue.find(name)
    provider = catalogue.providers[model.provider]
    try:
        before, _ = sent(dialect, plain, model, provider, False)
        after, named = sent(dialect, given, model, provider, False)
    except unable:
        return
    if after == before:
        assert named, f"{given} is dropped in silence"
    if named:
        with pytest.raises(MoaError) as refused:
            sent(dialect, given, model, provider, True)
        assert refused.value.param
    else:
        assert sent(dialect, given, model, provider, True)[0] == after
