"""Who may answer in a model's place: its chain of the catalogue, as far as this caller and this request can use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services.catalogue import Catalogue, Model
from services.common.errors import ContextTooLong, InvalidField, ModelRetired, Unsupported
from services.quota_client import unpriced
from services.router.domain import retirement
from services.router.domain.caller import Caller
from services.router.domain.ports import Reservation


def reachable(catalogue: Catalogue, model: Model, caller: Caller) -> Iterator[Model]:
    """Return the models of the chain that can be asked at all: configured, and not retired without a successor."""
    chain = catalogue.fallbacks(model) if caller.fallback else ()
    for named in chain:
        try:
            other, _ = retirement.standing(catalogue, named, retirement.today())
        except ModelRetired:
            continue
        if caller.own_key:
            reached = catalogue.providers[other.provider].takes_key(caller.own_key)
        else:
            reached = other.provider in catalogue.configured
        if reached:
            yield other


def able(
    catalogue: Catalogue, model: Model, caller: Caller, reservation: Reservation, check: Callable[[Model], None]
) -> list[Model]:
    """Return those of them that the caller's key may use and that can do what is asked.

    Args:
        reservation: The reservation, with what it was made for.
        check: Raises ContextTooLong, InvalidField or Unsupported for a model that cannot do what the request asks.
    """
    results: dict[str, Model] = {}
    for other in reachable(catalogue, model, caller):
        verified_key = reservation.verified_key
        if not verified_key.may(reservation.operation, other.provider, other.id):
            continue
        if other.lacks_price and not caller.own_key and not unpriced.may_pay(verified_key, other):
            continue
        try:
            check(other)
        except (ContextTooLong, InvalidField, Unsupported):
            continue
        results.setdefault(other.full_id, other)
    return list(results.values())
