"""Models that their owners end: told of before, answered by their successor or refused after."""

from __future__ import annotations

from datetime import UTC, date, datetime

from services.common.catalogue import Catalogue, Model, Retirement
from services.common.errors import ModelRetired


def today() -> date:
    """Give the day, in UTC."""
    return datetime.now(UTC).date()


def is_over(model: Model, on: date) -> bool:
    """Tell whether a model's owner has stopped it."""
    return model.retirement is not None and on >= model.retirement.date


def standing(catalogue: Catalogue, model: Model, on: date) -> tuple[Model, Retirement | None]:
    """Give who answers for `model`, and the retirement that callers are to be told of.

    Raises ModelRetired, with the successor's name, for a model that is over and has the policy `gone`.
    """
    told = model.retirement
    if told is not None and told.announced is not None and on < told.announced:
        told = None
    while model.retirement is not None and is_over(model, on):
        ended = model.retirement
        if ended.policy == "gone":
            raise ModelRetired(
                f"model {model.id} was retired on {ended.date:%Y-%m-%d}; use {ended.successor}", param="model"
            )
        model = catalogue.find(ended.successor)
    return model, told
