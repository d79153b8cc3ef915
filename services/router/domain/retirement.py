"""Models that their owners end: told of before, answered by their successor or refused after."""

from __future__ import annotations

from datetime import UTC, date, datetime

from services.catalogue import Catalogue, Model, Retirement
from services.common.errors import ModelRetired, Unsupported


def today() -> date:
    """Return the day, in UTC."""
    return datetime.now(UTC).date()


def is_over(model: Model, on: date) -> bool:
    """Return whether a model's owner has stopped it; one that its provider still lists is there, whatever was said."""
    return model.retirement is not None and on >= model.retirement.date and not model.is_listed


def name_the_retired(error: Unsupported, name: str, ending: Retirement | None) -> None:
    """Let a refusal of what the successor cannot do say for whom it answers: the caller asked for `name`."""
    if ending is not None and today() >= ending.date:
        error.message += f"; it answers for {name}, which was retired on {ending.date:%Y-%m-%d}"


def standing(catalogue: Catalogue, model: Model, on: date) -> tuple[Model, Retirement | None]:
    """Return who answers for `model`, and the retirement that callers are to be told of.

    Raises ModelRetired, with the successor's name, for a model that is over and has the policy `gone`.
    """
    ending = model.retirement
    if ending is not None and ending.announced is not None and on < ending.announced:
        ending = None
    seen = set()
    while model.retirement is not None and is_over(model, on) and model.full_id not in seen:
        seen.add(model.full_id)  # kept facts may name each other
        ended = model.retirement
        if ended.policy == "gone":
            raise ModelRetired(
                f"model {model.id} was retired on {ended.date:%Y-%m-%d}; use {ended.successor}", param="model"
            )
        model = catalogue.find(ended.successor)
    return model, ending
